"""
What is due when: the next time of each schedule, and the ticks that are tried again.

Decides the order only. Times of schedules are milliseconds of the wall clock; ticks are tried again at seconds of the
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
    """For a user to resume it."""
    ENDED = auto()
    """For nothing: it has no further time."""


@dataclass(slots=True, eq=False)
class Entry:
    """
    One schedule of a leader, and how far its ticks are sent.

    All its ticks up to `position` are sent, missed or skipped. Of those after it, `sending` wait for their confirm, `failed`
    were refused, and `confirmed` were confirmed before an earlier one was. `asking` is the tick that is sent if the task of
    the last one has ended. `last` is the last tick that this leader has sent; it has left out `missed` by the schedule's
    `misfire`, the last of them at `last_missed`, and `skipped` by its `overlap`.
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
    """Changes with each change of what it waits for: an older place in a `_DueHeap` does not count any more."""

    @property
    def name(self) -> str:
        """The schedule's name."""
        return self.schedule.name


class _DueHeap:
    """Entries by the time at which they are due. A place of an older version of its entry is ignored: it waits no more."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, int, Entry]] = []
        self._numbers = itertools.count()

    def add(self, at: float, entry: Entry) -> None:
        """Add a place for an entry as it is now."""
        heapq.heappush(self._heap, (at, next(self._numbers), entry.version, entry))

    @property
    def first(self) -> float | None:
        """When the first entry is due, None if there is none."""
        heap = self._heap
        while heap and heap[0][2] != heap[0][3].version:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def take(self, until: float) -> Entry | None:
        """Take the first entry if it is due until then."""
        first = self.first
        return None if first is None or first > until else heapq.heappop(self._heap)[3]


class Agenda:
    """The entries of all schedules, in the order in which they are due."""

    def __init__(self, schedules: Mapping[str, Schedule], position: int) -> None:
        self.entries = {name: Entry(schedule, position) for name, schedule in schedules.items()}
        self.lagging: dict[str, Entry] = {}
        """Those with ticks that are due and not confirmed."""
        self._waiting, self._retries = _DueHeap(), _DueHeap()

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
        """Take an entry off the agenda; `stage` is what it waits for now."""
        entry.version += 1
        entry.stage = stage
        self.lagging.pop(entry.name, None)

    def pop_due(self, now: int, monotonic: float) -> Entry | None:
        """Take an entry that is due: first those that are tried again, then in the order of their times; None if none is."""
        if (entry := self._retries.take(monotonic)) is not None:
            return entry
        if (entry := self._waiting.take(now)) is not None:
            assert entry.next is not None
            # No time is in between: if the entry lags, the token holds a recent position of it, not one that is years old.
            entry.position = max(entry.position, entry.next - 1)
        return entry

    def done_until(self, now: int) -> int:
        """Return up to which time, `now` at most, no entry waits for its time."""
        first = self._waiting.first
        return now if first is None else min(now, int(first) - 1)

    def seconds_left(self, now: int, monotonic: float) -> float | None:
        """Return the seconds until an entry is due, None if none ever is."""
        waiting, retry = self._waiting.first, self._retries.first
        left = [] if waiting is None else [(waiting - now) / 1000]
        left += [] if retry is None else [retry - monotonic]
        return min(left, default=None)
