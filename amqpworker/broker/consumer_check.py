"""
Whether the broker really has our subscriptions, asked of the broker itself.

Decides by the broker's view of each queue (a passive declare: ready messages, consumers) whether a subscription is sound.
`consumer` recovers one that is not. The channel of a sound subscription stays open, however long its queue is idle.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from amqpworker.broker.channel import Channel, open_channel
from amqpworker.broker.liveness import Liveness
from amqpworker.broker.pika_connection import ChannelListener, PikaConnection

if TYPE_CHECKING:
    from amqpworker.broker.consumer import Consumer

CHECK_EVERY = 3.0
# After this many seconds without an answer about a queue, the next one is checked.
ANSWER_TIMEOUT = 16.0
# Checks in a row that find ready messages and nothing delivered, or no consumer.
MOST_IDLE_CHECKS = 2
MOST_MISSING_CHECKS = 2
# RabbitMQ waits 250 ms for the leader of a queue, then it reports no messages and no consumers (3.10 to 4.3). So an answer that
# took about this many seconds is not reliable.
UNRELIABLE_AFTER = 0.2
FIRST_THAT_CANCELS = (4, 0)


@dataclass(frozen=True, slots=True)
class QueueState:
    """
    The broker's view of a queue: `ready` messages (None if there is no such queue) and `consumers`.

    If `unreliable`, both may be 0 because the leader of the queue has not responded.
    """

    ready: int | None
    consumers: int
    unreliable: bool = False


def problem_with(state: QueueState, idle_checks: float, missing_checks: int) -> str:
    """
    Return what is wrong with a subscription, "" if it seems sound.

    `idle_checks` counts the checks in a row, with this one, that found ready messages while nothing was delivered to this
    process or held by it; `missing_checks` the reliable ones that found no consumer.
    """
    if state.ready is None:
        return "the queue does not exist"
    if missing_checks >= MOST_MISSING_CHECKS:
        return "the broker has no consumer"
    if idle_checks >= MOST_IDLE_CHECKS:
        return f"{state.ready} messages are ready, but none is delivered"
    return ""


def resubscribes_silently(version: tuple[int, ...]) -> bool:
    """
    Return whether the broker does not cancel the consumers of a queue that is deleted and declared again within some 20 ms.

    It subscribes the channel to the new queue, and what it delivers to that consumer never arrives (3.10: 27 of 27), which no
    check shows. With `Channel.limit_all` it cannot, and cancels (27 of 27). From 4.0 on it always cancels.
    """
    return version < FIRST_THAT_CANCELS


class SubscriptionCheck:
    """Checks the queues of one connection every few seconds, on a channel of its own: a missing queue closes it."""

    def __init__(
        self,
        connection: PikaConnection,
        call_later: Callable[[float, Callable[[], None]], Callable[[], None]],
        liveness: Liveness,
        user: Consumer,
    ) -> None:
        self._connection = connection
        self._call_later = call_later
        self._liveness = liveness
        self._user = user
        self._channel: Channel | None = None
        self._to_check: list[str] = []
        self._current: str | None = None
        self._sent_at = 0.0
        # Counts the channels: callbacks of one that was given up are ignored.
        self._channel_count = 0
        self._stop_waiting: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Check after a while, and then regularly as long as the connection is open."""
        self._call_later(CHECK_EVERY, self._check_all)

    def _check_all(self) -> None:
        if not self._connection.is_open:
            return
        self._to_check = self._user.subscribed()
        if not self._to_check:
            self.start()
            return
        # The answer to the last check may be the last that arrived.
        self._liveness.expect(CHECK_EVERY)
        self._check_next()

    def _check_next(self) -> None:
        self._stop_waiting = self._call_later(ANSWER_TIMEOUT, self._give_up)
        if self._channel is not None:
            self._declare_passively()
            return
        self._channel_count += 1
        count = self._channel_count
        open_channel(
            self._connection,
            ChannelListener(),
            lambda channel: self._on_open(count, channel),
            lambda _: self._on_closed(count),
        )

    def _on_open(self, count: int, channel: Channel) -> None:
        if count != self._channel_count:
            channel.close()
            return
        self._channel = channel
        self._declare_passively()

    def _declare_passively(self) -> None:
        self._stop_waiting()
        if not self._to_check:
            self.start()
            return
        assert self._channel is not None
        self._current = self._to_check.pop()
        self._sent_at = time.monotonic()
        self._stop_waiting = self._call_later(ANSWER_TIMEOUT, self._give_up)
        count = self._channel_count
        self._channel.pika.queue_declare(
            self._current, passive=True, callback=lambda frame: self._on_answer(count, frame.method)
        )

    def _on_answer(self, count: int, answer: Any) -> None:
        if count != self._channel_count:
            return
        queue, self._current = self._current, None
        if queue is not None:
            unreliable = time.monotonic() >= self._sent_at + UNRELIABLE_AFTER
            self._user.on_checked(queue, QueueState(answer.message_count, answer.consumer_count, unreliable))
        self._declare_passively()

    def _on_closed(self, count: int) -> None:
        if count != self._channel_count:
            return
        self._stop_waiting()
        queue, self._current, self._channel = self._current, None, None
        if self._connection.is_open:
            if queue is not None:
                self._user.on_checked(queue, QueueState(None, 0))
            self.start()

    def _give_up(self) -> None:
        """Leave a channel that is not answered, and check the other queues on another."""
        self._channel_count += 1
        channel, self._channel, self._current = self._channel, None, None
        if channel is not None:
            channel.close()
        if self._to_check and self._connection.is_open:
            self._check_next()
        else:
            self.start()
