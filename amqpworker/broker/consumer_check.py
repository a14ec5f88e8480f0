"""
Whether what we consume is really consumed, asked of the broker itself.

Decides by its own view of each queue (a passive declare: ready messages, consumers) whether a subscription is sound. What
is done about one that is not is `consumer`'s.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from amqpworker.broker.channel import Channel, open_channel
from amqpworker.broker.liveness import Liveness
from amqpworker.broker.pika_connection import ChannelListener, PikaConnection

__all__ = ["Look", "Probe", "Watched", "subscribes_for_us", "trouble_of"]

EVERY = 3.0
# After this many seconds without an answer about one queue the next one is asked about.
PATIENCE = 16.0
# Looks in a row that find ready messages and nothing delivered, or no consumer.
MOST_STARVED = 2
MOST_FORGOTTEN = 2
# RabbitMQ asks a queue's leader for 250 ms; then it answers that there are no messages and no consumers (3.10 to 4.3). So an
# answer that took about as long says nothing.
DOUBT = 0.2
FIRST_THAT_CANCELS = (4, 0)


@dataclass(frozen=True, slots=True)
class Look:
    """
    One look at a queue: `ready` messages and `consumers` by the broker's count, None where there is no such queue.

    A `doubtful` one may say that there are none because the queue's leader has not answered.
    """

    ready: int | None
    consumers: int
    doubtful: bool = False


def trouble_of(look: Look, starved: float, forgotten: int) -> str:
    """
    Return why a subscription to a queue is none, "" where it is sound as far as one can tell.

    `starved` counts the looks in a row, with this one, that found ready messages while nothing was delivered here or held,
    `forgotten` those that found no consumer and are to be believed.
    """
    if look.ready is None:
        return "the queue is gone"
    if forgotten >= MOST_FORGOTTEN:
        return "the broker knows of no consumer"
    if starved >= MOST_STARVED:
        return f"{look.ready} messages are ready, and none comes"
    return ""


def subscribes_for_us(version: tuple[int, ...]) -> bool:
    """
    Tell whether the broker tells nobody of the end of a queue that is made again within some 20 ms.

    It subscribes the channel to the new one, and what is given to that consumer never arrives (3.10: 27 of 27), which no look
    shows. With `Channel.limit_all` it cannot, and cancels (27 of 27). From 4.0 on it cancels by itself.
    """
    return version < FIRST_THAT_CANCELS


class Watched(Protocol):
    """Who consumes, and is told; all in the I/O thread."""

    def subscribed(self) -> list[str]:
        """Return the queues that are consumed, as far as we know."""

    def looked(self, queue: str, look: Look) -> None:
        """Take what the broker says of a queue."""


class Probe:
    """Looks at the queues of one connection every few seconds, on a channel of its own: a missing queue closes it."""

    def __init__(
        self,
        connection: PikaConnection,
        call_later: Callable[[float, Callable[[], None]], Callable[[], None]],
        liveness: Liveness,
        watched: Watched,
    ) -> None:
        self._connection = connection
        self._call_later = call_later
        self._liveness = liveness
        self._watched = watched
        self._channel: Channel | None = None
        self._left: list[str] = []
        self._asked: str | None = None
        self._asked_at = 0.0
        # Counts the channels: what comes by one that was given up is not heard.
        self._turn = 0
        self._answered: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Look for the first time in a while, and then again and again as long as the connection lasts."""
        self._call_later(EVERY, self._begin)

    def _begin(self) -> None:
        if not self._connection.is_open:
            return
        self._left = self._watched.subscribed()
        if not self._left:
            self.start()
            return
        # The answer to the last look was perhaps the last that came.
        self._liveness.expect(EVERY)
        self._go_on()

    def _go_on(self) -> None:
        self._answered = self._call_later(PATIENCE, self._give_up)
        if self._channel is not None:
            self._ask()
            return
        self._turn += 1
        turn = self._turn
        open_channel(
            self._connection,
            ChannelListener(),
            lambda channel: self._on_open(turn, channel),
            lambda _: self._on_closed(turn),
        )

    def _on_open(self, turn: int, channel: Channel) -> None:
        if turn != self._turn:
            channel.close()
            return
        self._channel = channel
        self._ask()

    def _ask(self) -> None:
        self._answered()
        if not self._left:
            self.start()
            return
        assert self._channel is not None
        self._asked = self._left.pop()
        self._asked_at = time.monotonic()
        self._answered = self._call_later(PATIENCE, self._give_up)
        turn = self._turn
        self._channel.pika.queue_declare(
            self._asked, passive=True, callback=lambda frame: self._on_answer(turn, frame.method)
        )

    def _on_answer(self, turn: int, answer: Any) -> None:
        if turn != self._turn:
            return
        queue, self._asked = self._asked, None
        if queue is not None:
            doubtful = time.monotonic() >= self._asked_at + DOUBT
            self._watched.looked(queue, Look(answer.message_count, answer.consumer_count, doubtful))
        self._ask()

    def _on_closed(self, turn: int) -> None:
        if turn != self._turn:
            return
        self._answered()
        queue, self._asked, self._channel = self._asked, None, None
        if self._connection.is_open:
            if queue is not None:
                self._watched.looked(queue, Look(None, 0))
            self.start()

    def _give_up(self) -> None:
        """Leave a channel on which nothing is answered, and go on with the other queues on another."""
        self._turn += 1
        channel, self._channel, self._asked = self._channel, None, None
        if channel is not None:
            channel.close()
        if self._left and self._connection.is_open:
            self._go_on()
        else:
            self.start()
