"""
Copies of letters out, letters away: a letter is removed only after the broker has confirmed its copy.

Decides how many letters are under way at once, how fast they leave, and which error of one copy ends the move of the others.
Killed at any moment, it leaves each letter where it was, or doubles letters of one batch under their ids.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol

from amqpworker.errors import AmqpWorkerError, ConfigError, InvalidArguments, Unconfirmed
from amqpworker.model.dead_letter import DeadLetter
from amqpworker.model.message import Delivery, Publication

if TYPE_CHECKING:
    from amqpworker.broker.lane import Lane

BATCH = 500
WRITE_EVERY = 100
MAX_ERRORS = 20
# How much later than its deadline a publication may end.
GRACE = 5.0
# After a Ctrl-C: how long confirms of what was written are awaited, so that these letters are not doubled.
LAST_WAIT = 2.0

OF_ONE_LETTER = (InvalidArguments, ConfigError)
"""Errors that are about one letter: the others can still be moved."""

MakeCopy = Callable[[DeadLetter], Publication | None]
"""Makes the copy that takes the place of a letter, `None` if it is only removed; raises an error of `OF_ONE_LETTER`."""


def check_rate(rate: float | None) -> None:
    """Raise InvalidArguments if a rate is not a number of letters per second."""
    if rate is not None and not 0 < rate < math.inf:
        raise InvalidArguments(f"rate={rate!r}: it must be a number of letters per second.")


def no_copy(_: DeadLetter) -> None:
    """Make no copy: the letter is only removed."""


class RemovesLetters(Protocol):
    """What removes letters from their queue: a walk of it."""

    def remove(self, deliveries: Sequence[Delivery], on_removed: Callable[[], None]) -> None:
        """Remove these messages; `on_removed` is called in any thread, even if the caller is interrupted meanwhile."""


@dataclass(slots=True)
class Moved:
    """
    How many letters have left their queues, how many were `refused`, and why: texts, each with how many letters it is about.

    Names that `by_name` has as keys are counted there, too.
    """

    count: int = 0
    by_queue: Counter[str] = field(default_factory=Counter)
    by_name: dict[str, int] = field(default_factory=dict)
    refused: int = 0
    errors: dict[str, int] = field(default_factory=dict)

    def add(self, letter: DeadLetter) -> None:
        """Count a letter that has left its queue."""
        self.count += 1
        self.by_queue[letter.queue] += 1
        if self.by_name and (name := letter.name) in self.by_name:
            self.by_name[name] += 1

    def refuse(self, error: AmqpWorkerError) -> None:
        """Count a letter that stays."""
        self.refused += 1
        text = str(error)
        if text in self.errors or len(self.errors) < MAX_ERRORS:
            self.errors[text] = self.errors.get(text, 0) + 1


class LetterMover:
    """
    Moves letters in batches; `rate` is how many per second at most, `on_moved` is called with the number of each batch.

    Without a copy a letter is only removed.
    """

    def __init__(
        self,
        make_lane: Callable[[], Lane],
        timeout: float,
        make_copy: MakeCopy,
        rate: float | None = None,
        on_moved: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.moved = Moved()
        self.has_published = False
        """Whether copies may have been published."""
        self._make_lane = make_lane
        self._timeout = timeout
        self._make_copy = make_copy
        self._rate = rate
        self._on_moved = on_moved
        self._batch: list[DeadLetter] = []
        # A slow rate is kept by small batches, so that progress is seen and little is under way.
        self._size = BATCH if rate is None else max(1, min(BATCH, int(rate)))
        self._next_batch = 0.0

    def add(self, letter: DeadLetter, walk: RemovesLetters) -> None:
        """Move a letter together with others; raises the SendError for which no more can be moved."""
        self._batch.append(letter)
        if len(self._batch) >= self._size:
            self.flush(walk)

    def flush(self, walk: RemovesLetters) -> None:
        """Move what was added: returns once its copies are confirmed, and the letters removed; raises as `add` does."""
        batch, self._batch = self._batch, []
        if not batch:
            return
        self._keep_rate(len(batch))
        under_way = _Batch(batch)
        self.has_published = True
        try:
            under_way.publish(self._make_lane, self._timeout, self._make_copy)
            under_way.wait(self._timeout + GRACE)
        except BaseException:
            under_way.end_early()
            self._remove(under_way, walk)
            raise
        error = self._remove(under_way, walk)
        if error is not None:
            raise error

    def _remove(self, under_way: _Batch, walk: RemovesLetters) -> AmqpWorkerError | None:
        """Remove the letters whose copies are confirmed; return the error that ends the move, if there is one."""
        confirmed = under_way.confirmed()
        if confirmed:
            walk.remove([letter.message for letter in confirmed], partial(self._count, confirmed))
            self._on_moved(len(confirmed))
        for error in under_way.refused():
            self.moved.refuse(error)
        if under_way.reason is None and not under_way.has_ended:
            return Unconfirmed("RabbitMQ did not confirm the copy in time: it may exist beside the letter.")
        return under_way.reason

    def _count(self, letters: Iterable[DeadLetter]) -> None:
        for letter in letters:
            self.moved.add(letter)

    def _keep_rate(self, count: int) -> None:
        """Wait until this many may leave."""
        if self._rate is None:
            return
        now = time.monotonic()
        if now < self._next_batch:
            time.sleep(self._next_batch - now)
        self._next_batch = max(now, self._next_batch) + count / self._rate


class _Batch:
    """The copies of some letters: how each ended. Their ends are recorded by the thread of the connection."""

    def __init__(self, letters: list[DeadLetter]) -> None:
        self._letters = letters
        self._ends: dict[int, AmqpWorkerError | None] = {}
        self._all_ended = threading.Event()
        self._wanted = True
        self.reason: AmqpWorkerError | None = None
        """The first error that is not about one letter."""

    def publish(self, make_lane: Callable[[], Lane], timeout: float, make_copy: MakeCopy) -> None:
        """Publish the copies; what cannot be encoded ends with its error."""
        lane: Lane | None = None
        last = len(self._letters) - 1
        for number, letter in enumerate(self._letters):
            try:
                copy = make_copy(letter)
                if copy is None:
                    self._end(number, None)
                    continue
                lane = lane or make_lane()
                pending = lane.make_pending(copy, (), timeout, partial(self._end, number))
            except OF_ONE_LETTER as error:
                self._end(number, error)
                continue
            # Published again after a lost confirm it could be doubled, although its letter is still there.
            pending.resend = False
            pending.wanted = lambda: self._wanted
            # The broker has work while the rest is encoded.
            lane.submit(pending, urgent=number % WRITE_EVERY == 0 or number == last)
        if lane is not None:
            lane.session.keeper.wake()

    def _end(self, number: int, error: AmqpWorkerError | None) -> None:
        self._ends[number] = error
        if error is not None and not isinstance(error, OF_ONE_LETTER):
            self.reason = self.reason or error
            self._wanted = False  # what is not written yet stays a letter
        if self.has_ended:
            self._all_ended.set()

    def wait(self, timeout: float) -> bool:
        """Wait until all have ended; return whether they have."""
        return self._all_ended.wait(timeout)

    def end_early(self) -> None:
        """Write nothing more, and wait a moment for the confirms of what was written."""
        self._wanted = False
        self.wait(LAST_WAIT)

    def confirmed(self) -> list[DeadLetter]:
        """Return the letters whose copies are confirmed."""
        ends = self._ends.copy()
        return [letter for number, letter in enumerate(self._letters) if number in ends and ends[number] is None]

    def refused(self) -> list[AmqpWorkerError]:
        """Return the errors that are about one letter each."""
        return [error for error in self._ends.copy().values() if isinstance(error, OF_ONE_LETTER)]

    @property
    def has_ended(self) -> bool:
        """Whether all copies have ended."""
        return len(self._ends) == len(self._letters)
