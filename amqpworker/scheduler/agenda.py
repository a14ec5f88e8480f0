"""
What is due when: the next time of each schedule, and the ticks that are tried again.

Decides the order only. Times of schedules are milliseconds of the wall clock; a pause before another try is seconds of the
monotonic clock, which is never set.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from amqpworker.schedules.definition import Schedule


class Stage(Enum):
    """What a schedule waits for."""

    WAITING = auto()
    """For its next time."""
    BUSY = auto()
    """For the broker to confirm its ticks, or for the result store."""
    FAILED = auto()
    """For another try."""
    PAUSED = auto()
    ENDED = auto()
    """For nothing: it has no further time."""


@dataclass(slots=True, eq=False)
class Entry:
    """
    One schedule: all its ticks up to `position` are dealt with, those that are `sending` wait for their confirm.

    `confirmed` are ticks after `position` that were confirmed, while one before them was not. `asking` is the tick that is
    sent if the task of the last one has ended. `last` is the last tick that was sent, `missed` how many were not, by the
    schedule's `misfire`, `skipped` how many by its `overlap`.
    """

    schedule: Schedule
    position: int
    stage: Stage = Stage.WAITING
    next: int | None = None
    sending: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)
    confirmed: set[int] = field(default_factory=set)
    goal: int = 0
    """The position once all that are `sending` are confirmed."""
    failures: int = 0
    asking: int | None = None
    last: int | None = None
    missed: int = 0
    last_missed: int | None = None
    skipped: int = 0
    version: int = 0
    """Counts the times that it was put on the agenda: an older place there does not count."""

    @property
    def name(self) -> str:
        """The schedule's name."""
        return self.schedule.name


class _Places:
    """Places of entries in an order, the first of which can be taken; a place of an older version does not count."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, int, Entry]] = []
        self._numbers = itertools.count()

    def add(self, at: float, entry: Entry) -> None:
        """Add a place for the present version of an entry."""
        heapq.heappush(self._heap, (at, next(self._numbers), entry.version, entry))

    @property
    def first(self) -> float | None:
        """The first place, None if there is none."""
        heap = self._heap
        while heap and heap[0][2] != heap[0][3].version:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def take(self, until: float) -> list[Entry]:
        """Take the entries up to this place, in their order."""
        taken = []
        while (first := self.first) is not None and first <= until:
            taken.append(heapq.heappop(self._heap)[3])
        return taken


class Agenda:
    """The entries of all schedules, in the order in which they are due."""

    def __init__(self, schedules: Mapping[str, Schedule], position: int) -> None:
        self.entries = {name: Entry(schedule, position) for name, schedule in schedules.items()}
        self.lagging: dict[str, Entry] = {}
        """Those with ticks that are due and not confirmed."""
        self._waiting, self._retries = _Places(), _Places()

    def put(self, entry: Entry) -> None:
        """Have an entry wait for the first time after its position."""
        self.remove(entry, Stage.ENDED)
        entry.next = entry.schedule.timing.after(entry.position)
        if entry.next is not None:
            entry.stage = Stage.WAITING
            self._waiting.add(entry.next, entry)

    def retry(self, entry: Entry, at: float) -> None:
        """Have an entry wait for another try at this monotonic time."""
        self.keep_busy(entry, at)
        entry.stage = Stage.FAILED

    def keep_busy(self, entry: Entry, until: float | None = None) -> None:
        """Have an entry wait for an answer about its ticks; without one it is due at this monotonic time."""
        self.remove(entry, Stage.BUSY)
        self.lagging[entry.name] = entry
        if until is not None:
            self._retries.add(until, entry)

    def remove(self, entry: Entry, stage: Stage) -> None:
        """Have an entry wait for nothing here."""
        entry.version += 1
        entry.stage = stage
        self.lagging.pop(entry.name, None)

    def pop_due(self, now: int, monotonic: float) -> list[Entry]:
        """Take the entries that are due, in the order of their times."""
        due = self._waiting.take(now)
        for entry in due:
            assert entry.next is not None
            # No time is between: if it lags, the next leader does not start from a position that is years old.
            entry.position = max(entry.position, entry.next - 1)
        return due + self._retries.take(monotonic)

    def seconds_left(self, now: int, monotonic: float) -> float | None:
        """Return the seconds until an entry is due, None if none ever is."""
        waiting, retry = self._waiting.first, self._retries.first
        left = [] if waiting is None else [(waiting - now) / 1000]
        left += [] if retry is None else [retry - monotonic]
        return min(left, default=None)
