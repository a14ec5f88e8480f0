"""
Reading the letters of a queue, and moving some of them out of it, by walks of the whole queue.

Decides how long one walk lasts: messages that it has received and that stay are kept from the queue meanwhile, and the broker
closes a channel that keeps one for too long (its ack timeout, 30 minutes by default).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Self

from amqpworker.broker.queue_walk import QueueWalker
from amqpworker.broker.tool_connection import Depth
from amqpworker.client.letter_queues import ReplayTargets, no_such_queue
from amqpworker.errors import AmqpWorkerError
from amqpworker.model import headers as h
from amqpworker.model.dead_letter import DeadLetter
from amqpworker.model.letter_selection import Selection

if TYPE_CHECKING:
    from amqpworker.client.letter_mover import LetterMover
    from amqpworker.routing.queues import Plan
    from amqpworker.settings import Settings

WALK_SECONDS = 600.0


class LetterWalks:
    """
    A connection that reads letters, as a context manager; all of its methods may raise NotConnected or AccessRefused.

    `on_busy` is called with a text for people before it waits for another reader of a queue.
    """

    def __init__(
        self, url: str, settings: Settings, plan: Plan, on_busy: Callable[[str], None] = lambda _: None
    ) -> None:
        self._plan = plan
        self._walker = QueueWalker(url, settings, on_busy=on_busy)
        self._began = 0

    def __enter__(self) -> Self:
        self._began = int(time.time() * 1000)
        self._walker.__enter__()
        return self

    def __exit__(self, *details: object) -> None:
        self._walker.__exit__(*details)

    @property
    def parked_queue(self) -> str:
        """The queue of parked messages."""
        return self._plan.names.parked

    def parked(self) -> int | None:
        """Return how many messages are parked; `None` if that is not known, as while another program reads them."""
        try:
            depth = self._walker.depth(self.parked_queue)
        except AmqpWorkerError:
            return None
        return None if depth is None or depth.consumers else depth.messages

    def targets(self, to: str | None) -> ReplayTargets:
        """Return where letters are replayed to; raises ConfigError if the queue `to` does not exist."""
        return ReplayTargets(self._walker, self._plan.names, to)

    def depths(self, queues: Sequence[str], must_exist: bool) -> dict[str, Depth | None]:
        """Return how full queues are, `None` for one that does not exist; raises ConfigError for it if it `must_exist`."""
        depths: dict[str, Depth | None] = {}
        for queue in queues:
            depths[queue] = self._walker.depth(queue)
            if depths[queue] is None and must_exist:
                raise no_such_queue(self._plan, self._walker, queue)
        return depths

    def existing(self, queues: Sequence[str]) -> list[str]:
        """Return those of the queues that exist."""
        return [queue for queue, depth in self.depths(queues, must_exist=False).items() if depth is not None]

    def read(self, queue: str, selection: Selection) -> Generator[DeadLetter, None, None]:
        """Yield the selected letters of a queue, the oldest first; they are requeued at the end, so use them soon."""
        with self._walker.walk(queue) as walk:
            for position, delivery in enumerate(walk, 1):
                letter = DeadLetter.of(delivery, queue, position)
                if selection.matches(letter):
                    yield letter

    def move(self, queue: str, selection: Selection, mover: LetterMover, most: int | None = None) -> int:
        """
        Move the selected letters, the oldest first, at most `most` of them; return how many were selected.

        Letters that have died since this connection began are left alone: those that were replayed by it, to any queue, too. Of
        those that are chosen by their names only the latter, since the clock of their worker may be ahead.
        """
        selected = 0
        while True:
            until, before, unfinished = time.monotonic() + WALK_SECONDS, selected, False
            with self._walker.walk(queue) as walk:
                for position, delivery in enumerate(walk, 1):
                    letter = DeadLetter.of(delivery, queue, position)
                    if selection.matches(letter) and not self._died_meanwhile(letter, bool(selection.names)):
                        unfinished = selected > before and time.monotonic() > until
                        if unfinished or selected == most:
                            break
                        selected += 1
                        mover.add(letter, walk)
                mover.flush(walk)
            if not unfinished:
                return selected

    def _died_meanwhile(self, letter: DeadLetter, is_named: bool) -> bool:
        now = int(time.time() * 1000)
        return replayed_between(letter, self._began, now) or (not is_named and died_between(letter, self._began, now))


def replayed_between(letter: DeadLetter, began: int, now: int) -> bool:
    """Return whether a letter was replayed in this time (milliseconds since the epoch)."""
    replayed = h.time_of((letter.message.properties.headers or {}).get(h.REPLAYED))
    return replayed is not None and began <= replayed <= now


def died_between(letter: DeadLetter, began: int, now: int) -> bool:
    """
    Return whether a letter has died in this time, by the clock of its worker.

    What died later than `now` was perhaps there before: only a clock is wrong.
    """
    return letter.failed_at is not None and began <= letter.failed_at.timestamp() * 1000 <= now
