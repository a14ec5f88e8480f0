"""
What worker processes leave to their supervisor when they end: the processes that their tasks have started.

Decides which processes these are, and which messages have to wait until they have ended: those that ran in the worker process
that has left them. Other children of the supervisor are not touched: those that it had before, and, if it is process 1 of a
container, orphans of other programs.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection
from dataclasses import dataclass, field

from amqpworker.ipc.descendants import Ending, Known, children_of, known, living
from amqpworker.ipc.exit_status import log_ended

__all__ = ["Orphans"]

# The end of a process with much memory takes a moment, in which its threads may already leave us their children.
FRESH = 3.0
LOOK = 0.05


@dataclass(slots=True)
class LeftProcesses:
    """The processes that one worker process has left."""

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
        self._left: list[LeftProcesses] = []

    @property
    def active(self) -> bool:
        """Whether something is being ended; look again in `LOOK` seconds."""
        return bool(self._left)

    @property
    def awaited(self) -> Collection[str]:
        """The messages that are not to be run before what their last run has started has ended."""
        return frozenset().union(*(left.keys for left in self._left)) if self._left else ()

    def look(self, ours: Collection[int], now: float) -> None:
        """Note what became our child; called before the ends of worker processes are looked for."""
        before, first = self._since or {}, -math.inf if self._since is None else now
        self._since = {pid: before.get(pid, first) for pid in children_of(os.getpid()) if pid not in ours}

    def note_death(self, pid: int, keys: Collection[str], now: float) -> None:
        """End what a worker process has left in which the messages ran that are known by `keys`."""
        left = LeftProcesses(pid, frozenset(keys))
        left.ending = Ending(left.living, now)
        self._left.append(left)

    def proceed(self, ours: Collection[int], now: float) -> None:
        """Continue to end what is to be ended."""
        if not self._left:
            return
        self.look(ours, now)
        assert self._since is not None
        taken = {one for left in self._left for one in left.seen}
        fresh = known(pid for pid, since in self._since.items() if since >= now - FRESH) - taken
        self._left[-1].seen |= fresh
        for left in list(self._left):
            assert left.ending is not None
            if left.ending.proceed(now):
                log_ended(left.ending, parent=left.pid)
                self._left.remove(left)
