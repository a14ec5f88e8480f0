"""
Reading the delay ladder: its levels as whole queues, from the top down.

Decides the order, which catches what moves down meanwhile, and that no message is yielded twice. A message that is between two
levels at the wrong moment is missed: that it was not found does not mean that it has run.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple, Self

from amqpworker.broker.queue_walk import QueueWalker, Walk
from amqpworker.model.pending_message import PendingMessage
from amqpworker.routing.delay import longest_wait
from amqpworker.routing.topology import LEVELS, UNIT, Names

if TYPE_CHECKING:
    from amqpworker.settings import Settings

# A message that leaves its level within this many seconds may be met again in a lower one.
SOON = 600.0


class Level(NamedTuple):
    """A level of the ladder that is not empty."""

    number: int
    name: str
    messages: int


class LadderWalk:
    """
    A connection that reads the levels, as a context manager.

    `longest` is how long the longest walk of a level took, in seconds: what fell due in that level meanwhile is late by at most
    that. `read` counts the messages. `on_busy` is called with a text for people before it waits for another reader of a level.
    """

    def __init__(
        self,
        url: str,
        settings: Settings,
        names: Names,
        now: Callable[[], float],
        on_busy: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.longest = 0.0
        self.read = 0
        self._names = names
        self._now = now
        self._walker = QueueWalker(url, settings, on_busy=on_busy)

    def __enter__(self) -> Self:
        self._walker.__enter__()
        return self

    def __exit__(self, *details: object) -> None:
        self._walker.__exit__(*details)

    def levels(self) -> list[Level]:
        """Return the levels that are not empty, from the top down."""
        found = []
        for number in range(LEVELS - 1, -1, -1):
            name = self._names.level(number)
            depth = self._walker.depth(name)
            if depth is not None and (depth.messages or depth.consumers):
                found.append(Level(number, name, depth.messages))
        return found

    def walks(self) -> Generator[tuple[Walk, Iterator[PendingMessage]]]:
        """
        Yield the walk of each level with the messages that it finds; the walk ends when the next one is asked for.

        The level is kept from delivering meanwhile. Raises QueueBusy, NotConnected, AccessRefused or SendError.
        """
        seen: set[int] = set()
        for number in range(LEVELS - 1, -1, -1):
            name = self._names.level(number)
            depth = self._walker.depth(name)
            if depth is None or not (depth.messages or depth.consumers):
                continue
            walk = self._walker.walk(name)
            try:
                with walk:
                    yield walk, self._of_level(number, walk, seen)
            finally:
                self.longest = max(self.longest, walk.seconds)

    def messages(self) -> Generator[PendingMessage]:
        """Yield each message that waits, and was in a level while that was read; raises as `walks` does."""
        with closing(self.walks()) as walks:
            for _, found in walks:
                yield from found

    def _of_level(self, number: int, walk: Walk, seen: set[int]) -> Iterator[PendingMessage]:
        for delivery in walk:
            self.read += 1
            if delivery.routing_key == self._names.cancelled:
                continue  # a cancel that waits like the message that it is for
            headers = delivery.properties.headers or {}
            message = PendingMessage.of(delivery, longest_wait(number, headers), self._now())
            if message.id and self._may_be_seen_twice(number, message):
                key = hash((message.id, message.attempt if message.is_latest else message.due))
                if key in seen:
                    continue
                seen.add(key)
            yield message

    def _may_be_seen_twice(self, number: int, message: PendingMessage) -> bool:
        """Return whether a message was, or will be, in another level during the walk."""
        below = longest_wait(number, message.message.properties.headers or {}) - UNIT * 2**number
        return message.is_latest or message.due.timestamp() - below < self._now() + SOON
