"""
Whether the broker really has our subscriptions, asked of the broker itself by a passive declaration of each queue.

Decides when to ask; `consumer_channel` decides by the answer whether a subscription is sound.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from amqpworker.broker.connection import Channel, QueueState
from amqpworker.broker.own_channel import OwnChannel
from amqpworker.broker.pika_connection import PikaConnection

if TYPE_CHECKING:
    from amqpworker.broker.consumer import Consumer

CHECK_EVERY = 3.0
# After this many seconds without an answer about a queue, the next one is checked.
ANSWER_TIMEOUT = 16.0
FIRST_THAT_CANCELS = (4, 0)


def resubscribes_silently(version: tuple[int, ...]) -> bool:
    """
    Return whether the broker does not cancel the consumers of a queue that is deleted and declared again within some 20 ms.

    It subscribes the channel to the new queue, and what it delivers to that consumer never arrives (3.10: 27 of 27), which no
    check shows. With `PikaChannel.set_shared_limit` it cannot, and cancels (27 of 27). From 4.0 on it always cancels.
    """
    return version < FIRST_THAT_CANCELS


class SubscriptionCheck:
    """Checks the queues of one connection every few seconds, on a channel of its own: a missing queue closes it."""

    def __init__(self, connection: PikaConnection, consumer: Consumer) -> None:
        self._connection = connection
        self._consumer = consumer
        self._io = consumer.keeper
        self._channel = OwnChannel(connection, self._on_closed)
        self._to_check: list[str] = []
        self._current: str | None = None
        self._stop_waiting: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Check after a while, and then regularly as long as the connection is open."""
        # `_on_closed` cancels it: else each close of the channel between two checks would add another series of checks.
        self._stop_waiting = self._io.call_later(CHECK_EVERY, self._check_all)

    def _check_all(self) -> None:
        if not self._connection.is_open:
            return
        self._to_check = self._consumer.subscribed()
        if not self._to_check:
            self.start()
            return
        # The answer to the last check may be the last that arrived.
        self._io.liveness.expect(CHECK_EVERY)
        self._check_next()

    def _check_next(self) -> None:
        self._stop_waiting = self._io.call_later(ANSWER_TIMEOUT, self._give_up)
        self._channel.use(self._ask)

    def _ask(self, channel: Channel) -> None:
        self._stop_waiting()
        if not self._to_check:
            self.start()
            return
        self._current = queue = self._to_check.pop()
        self._stop_waiting = self._io.call_later(ANSWER_TIMEOUT, self._give_up)

        def on_answer(state: QueueState) -> None:
            self._current = None
            self._consumer.on_checked(queue, state)
            self._ask(channel)

        channel.ask(queue, self._channel.unless_closed(on_answer))

    def _on_closed(self, _: BaseException) -> None:
        self._stop_waiting()
        queue, self._current = self._current, None
        if self._connection.is_open:
            if queue is not None:
                self._consumer.on_checked(queue, QueueState(None, 0))
            self.start()

    def _give_up(self) -> None:
        """Leave a channel that is not answered, and check the other queues on another."""
        self._current = None
        self._channel.close()
        if self._to_check and self._connection.is_open:
            self._check_next()
        else:
            self.start()
