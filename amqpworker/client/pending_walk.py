"""
Reading the delay ladder: its levels as whole queues, from the top down.

Decides the order, which catches what moves down meanwhile, and that a list has no message twice. A message that is between two
levels at the wrong moment is missed: that it was not found does not mean that it has run.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple, Self

from amqpworker.broker.queue_walk import QueueWalker, Walk
from amqpworker.model.headers import ETA, time_of
from amqpworker.model.pending_message import PendingMessage
from amqpworker.routing.delay import longest_wait
from amqpworker.routing.topology import LEVELS, UNIT, Names

if TYPE_CHECKING:
    from amqpworker.settings import Settings

# A message that leaves its level within this many seconds may be met again in a lower one.
SOON = 600.0


class Level(NamedTuple):
    """A level of the ladder that is not empty; while it `is_read` by another program, more `messages` may be in it."""

    number: int
    name: str
    messages: int
    is_read: bool


class LadderWalk:
    """
    A connection that reads the levels, as a context manager.

    `longest` is how long the longest walk of a level took, in seconds: what fell due in that level meanwhile is late by at most
    that. `read` counts the messages. `missing` has the levels that do not exist though others do, once `levels` has returned;
    their messages are lost, and nothing else fails because of them; `has_ladder` is whether any level exists. `on_busy` is called
    with a text for people before it waits for another reader of a level.
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
        self.missing: list[str] = []
        self.has_ladder = True
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
        found, missing = [], []
        for number in range(LEVELS - 1, -1, -1):
            name = self._names.level(number)
            depth = self._walker.depth(name)
            if depth is None:
                missing.append(name)
            elif depth.messages or depth.consumers:
                found.append(Level(number, name, depth.messages, depth.consumers > 0))
        self.has_ladder = len(missing) < LEVELS
        self.missing = missing if self.has_ladder else []
        return found

    def walks(self) -> Generator[tuple[Walk, Iterator[PendingMessage]]]:
        """
        Yield the walk of each level with all messages that it finds; the walk ends when the next one is asked for.

        Those that are not removed may be met again in a lower level. The level is kept from delivering meanwhile. Raises
        QueueBusy, NotConnected, AccessRefused or SendError.
        """
        return self._walks(None)

    def messages(self) -> Generator[PendingMessage]:
        """Yield each message that waits, and was in a level while that was read, once; raises as `walks` does."""
        with closing(self._walks(set())) as walks:
            for _, found in walks:
                yield from found

    def _walks(self, seen: set[int] | None) -> Generator[tuple[Walk, Iterator[PendingMessage]]]:
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

    def _of_level(self, number: int, walk: Walk, seen: set[int] | None) -> Iterator[PendingMessage]:
        for delivery in walk:
            self.read += 1
            if delivery.routing_key == self._names.cancelled:
                continue  # a cancel that waits like the message that it is for
            now, waits = self._now(), longest_wait(number, delivery.properties.headers or {})
            message = PendingMessage.of(delivery, waits, now)
            below = waits - UNIT * (1 << number)
            # Else it was, and will be, in this level only while the ladder is read.
            is_moving = message.is_latest or message.due.timestamp() - below < now + SOON
            if seen is not None and message.id and is_moving:
                key = hash(key_of(message))
                if key in seen:
                    continue
                seen.add(key)
            yield message


def key_of(message: PendingMessage) -> tuple[object, ...]:
    """Return what stays the same while a message moves down, and is another after its next run; it may be late, and not `due`."""
    eta = time_of((message.message.properties.headers or {}).get(ETA))
    return message.id, message.task, message.queue, message.attempt, eta
