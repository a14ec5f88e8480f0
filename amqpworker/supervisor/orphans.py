"""
What worker processes leave to their supervisor when they end: the processes that their tasks have started.

Decides which processes these are, and which messages have to wait until they have ended: those that ran in the process that
has left them. Other processes that come to the supervisor are not touched: those that it had before, and, if it is the
first process of a container, those that others have left.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection
from dataclasses import dataclass, field

from amqpworker.worker.childprocesses import report
from amqpworker.worker.descendants import Ending, Known, children_of, known, living

__all__ = ["Orphans"]

# The end of a process with much memory takes a moment, and its threads may leave theirs before it.
FRESH = 3.0
LOOK = 0.05


@dataclass(slots=True)
class Estate:
    """What one worker process has left."""

    pid: int
    keys: frozenset[str]
    seen: set[Known] = field(default_factory=set)
    ending: Ending | None = None

    def living(self) -> set[Known]:
        """Return what of it has not ended."""
        self.seen = living(self.seen)
        return self.seen


class Orphans:
    """The children of this process that it has not started itself (`ours` are those that it has)."""

    def __init__(self) -> None:
        self._since: dict[int, float] | None = None
        self._estates: list[Estate] = []

    @property
    def active(self) -> bool:
        """Whether something is being ended; look again in `LOOK` seconds."""
        return bool(self._estates)

    @property
    def awaited(self) -> Collection[str]:
        """The messages that are not to be run before what their last run has started has ended."""
        return frozenset().union(*(estate.keys for estate in self._estates)) if self._estates else ()

    def look(self, ours: Collection[int], now: float) -> None:
        """Note what has come to us; before the ends of worker processes are looked for."""
        before, first = self._since or {}, -math.inf if self._since is None else now
        self._since = {pid: before.get(pid, first) for pid in children_of(os.getpid()) if pid not in ours}

    def note_death(self, pid: int, keys: Collection[str], now: float) -> None:
        """End what a worker process has left in which the messages ran that are known by `keys`."""
        estate = Estate(pid, frozenset(keys))
        estate.ending = Ending(estate.living, now)
        self._estates.append(estate)

    def proceed(self, ours: Collection[int], now: float) -> None:
        """Go on with what is to be ended."""
        if not self._estates:
            return
        self.look(ours, now)
        assert self._since is not None
        taken = {one for estate in self._estates for one in estate.seen}
        fresh = known(pid for pid, since in self._since.items() if since >= now - FRESH) - taken
        self._estates[-1].seen |= fresh
        for estate in list(self._estates):
            assert estate.ending is not None
            if estate.ending.proceed(now):
                report(estate.ending, parent=estate.pid)
                self._estates.remove(estate)
