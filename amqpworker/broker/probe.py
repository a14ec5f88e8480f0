"""
Whether what we consume is really consumed, asked of the broker itself.

Decides by its own view of each queue (a passive declare: ready messages, consumers) whether a subscription is sound. What
is done about one that is not is `consumer`'s. A broker that does not answer in time is as good as gone: frozen, or behind
a connection of which the other half is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from amqpworker.broker.channel import Channel, open_channel
from amqpworker.broker.seam import PublicConnection, Sink

__all__ = ["Look", "Probe", "Watched", "renewal", "trouble_of"]

EVERY = 3.0
PATIENCE = 4.0
# The answer may have come, and wait behind other work of this thread.
GRACE = 0.5
# Looks in a row that find ready messages and nothing delivered.
MOST_STARVED = 2
# RabbitMQ 3.10 leaves a consumer behind whose queue is deleted and made again within 20 ms: no cancel comes, and messages
# are given to it that never arrive (tried; 4.0 and 4.3 do not), which no look shows. So a subscription without work is made
# anew, this often.
RENEWAL = 60.0
OLD_RENEWAL = 4.0
FIRST_THAT_CANCELS = (4, 0)


@dataclass(frozen=True, slots=True)
class Look:
    """
    One look at a queue: `ready` messages and `consumers` by the broker's count, None where there is no such queue.

    `starved` counts the looks in a row, with this one, that found ready messages while nothing was delivered here or held.
    """

    ready: int | None
    consumers: int
    starved: int = 0


def trouble_of(look: Look) -> str:
    """Return why a subscription to a queue is none, "" where it is sound as far as one can tell."""
    if look.ready is None:
        return "the queue is gone"
    if look.consumers == 0:
        return "the broker knows of no consumer"
    if look.starved >= MOST_STARVED:
        return f"{look.ready} messages are ready, and none comes"
    return ""


def renewal(version: tuple[int, ...]) -> float:
    """Return after how many seconds without work a subscription is made anew, by the broker's version."""
    return OLD_RENEWAL if version < FIRST_THAT_CANCELS else RENEWAL


class Watched(Protocol):
    """Who consumes, and is told; all in the I/O thread."""

    def subscribed(self) -> list[str]:
        """Return the queues that are consumed, as far as we know."""

    def looked(self, queue: str, ready: int | None, consumers: int) -> None:
        """Take what the broker says of a queue; None where there is none."""

    def unanswered(self) -> None:
        """Take that the broker does not answer."""


class Probe:
    """Looks at the queues of one connection every few seconds, on a channel of its own: a missing queue closes it."""

    def __init__(
        self, connection: PublicConnection, call_later: Callable[[float, Callable[[], None]], None], watched: Watched
    ) -> None:
        self._connection = connection
        self._call_later = call_later
        self._watched = watched
        self._channel: Channel | None = None
        self._left: list[str] = []
        self._asked: str | None = None
        self._turn = 0

    def start(self) -> None:
        """Look for the first time in a while, and then again and again as long as the connection lasts."""
        self._call_later(EVERY, self._begin)

    def _begin(self) -> None:
        if not self._connection.is_open:
            return
        self._left = self._watched.subscribed()
        if not self._left:
            self.start()
        elif self._channel is None:
            self._expect()
            open_channel(self._connection, Sink(), self._on_open, self._on_closed)
        else:
            self._ask()

    def _on_open(self, channel: Channel) -> None:
        self._channel = channel
        self._ask()

    def _ask(self) -> None:
        if not self._left:
            self._turn += 1
            self.start()
            return
        assert self._channel is not None
        self._asked = self._left.pop()
        self._expect()
        self._channel.pika.queue_declare(self._asked, passive=True, callback=self._on_answer)

    def _on_answer(self, frame: Any) -> None:
        queue, self._asked = self._asked, None
        if queue is not None:
            self._watched.looked(queue, frame.method.message_count, frame.method.consumer_count)
        self._ask()

    def _on_closed(self, _error: BaseException) -> None:
        queue, self._asked, self._channel = self._asked, None, None
        self._turn += 1
        if self._connection.is_open:
            if queue is not None:
                self._watched.looked(queue, None, 0)
            self.start()

    def _expect(self) -> None:
        """Have it told where the next answer does not come in time."""
        self._turn += 1
        turn = self._turn
        self._call_later(PATIENCE, lambda: self._call_later(GRACE, lambda: self._check(turn)))

    def _check(self, turn: int) -> None:
        if turn == self._turn and self._connection.is_open:
            self._watched.unanswered()
