"""
What precedes a subscription: that what it requires is declared, and a pause if it failed before.

Decides what is declared next, and when a subscription that failed is tried again. `consumer` subscribes then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from amqpworker.broker.consumer_channel import Subscription
from amqpworker.broker.declarer import Declarer
from amqpworker.broker.pika_connection import PikaConnection
from amqpworker.errors import AmqpWorkerError
from amqpworker.lifecycle import backoff
from amqpworker.log.logger import get_logger

if TYPE_CHECKING:
    from amqpworker.broker.io_thread import IOThread

log = get_logger("amqpworker.broker.consumer")

FIRST_PAUSE = 0.5
MAX_PAUSE = 30.0


class Preparation:
    """Prepares subscriptions in the I/O thread of a consumer, and calls `on_ready` with each that is prepared."""

    def __init__(self, io: IOThread, on_ready: Callable[[Subscription], None]) -> None:
        self.failures: dict[str, AmqpWorkerError] = {}
        """The errors of the queues that are not consumed."""
        self._io = io
        self._on_ready = on_ready
        # How often in a row each queue had to wait before it was subscribed to again.
        self._pauses: dict[str, int] = {}
        self._declarer: Declarer | None = None

    def on_opened(self, connection: PikaConnection) -> None:
        """Declare on this connection from now on."""
        self._declarer = Declarer(connection, self._io)
        self._pauses.clear()
        self.failures.clear()

    def stop(self) -> None:
        """Prepare nothing more: the connection was lost, or the consumer drains."""
        self._declarer = None

    def on_consumed(self, queue: str) -> None:
        """Note that a queue is consumed."""
        self.failures.pop(queue, None)
        self._pauses.pop(queue, None)

    def forget_declared(self) -> None:
        """Declare again what subscriptions require: some of it may not exist any more."""
        if self._declarer is not None:
            self._declarer.forget()

    def prepare(self, subscription: Subscription) -> None:
        """Make sure that what a subscription requires exists, then have it made."""
        declarer = self._declarer
        if declarer is None:
            return
        missing = [one for one in subscription.requirements if one not in declarer.declared]

        def on_declared(error: AmqpWorkerError | None) -> None:
            if declarer is not self._declarer:
                return
            if error is None:
                self.prepare(subscription)
            else:
                self.retry_later(subscription, error)

        if missing:
            declarer.ensure(missing[0], on_declared)
        else:
            self._on_ready(subscription)

    def retry_later(self, subscription: Subscription, error: AmqpWorkerError) -> None:
        """Note why a queue is not consumed, and prepare its subscription again after a pause."""
        self.failures[subscription.queue] = error
        log.warning("queue_not_consumed", queue=subscription.queue, reason=str(error))
        self.prepare_after_pause(subscription)

    def prepare_after_pause(self, subscription: Subscription) -> None:
        """Prepare a subscription again after a pause, which doubles each time."""
        pauses = self._pauses[subscription.queue] = self._pauses.get(subscription.queue, 0) + 1
        declarer = self._declarer

        def on_pause_over() -> None:
            if self._declarer is declarer:
                self.prepare(subscription)

        self._io.call_later(backoff(FIRST_PAUSE, MAX_PAUSE, pauses), on_pause_over)
