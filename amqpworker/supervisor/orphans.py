"""
The orphans of worker processes: processes that tasks have started, and that become children of the supervisor.

Decides which processes these are, and which messages have to wait until they have ended: those that ran in the worker process
that started them. Other children of the supervisor are left alone: those that it had before, and, if it is process 1 of a
container, orphans of other programs.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection

from amqpworker.ipc.descendants import ProcessSet, Termination, children_of, keys_of
from amqpworker.ipc.exit_status import log_children_ended

# The end of a process with much memory takes a moment, in which the kernel may already pass on the children of its threads.
RECENT = 3.0
ORPHAN_CHECK_INTERVAL = 0.05


class LeftProcesses(ProcessSet):
    """The orphans of one worker process, in which the messages in `blocked` ran."""

    def __init__(self, pid: int, blocked: frozenset[str], now: float) -> None:
        super().__init__()
        self.pid = pid
        self.blocked = blocked
        self.termination = Termination(self.alive, now)


class Orphans:
    """The children of this process that it has not started itself (`own_pids` are those that it has)."""

    def __init__(self) -> None:
        self._since: dict[int, float] | None = None
        self._left: list[LeftProcesses] = []

    @property
    def active(self) -> bool:
        """Whether orphans are being terminated; `proceed` is due again in `ORPHAN_CHECK_INTERVAL` seconds."""
        return bool(self._left)

    @property
    def blocked(self) -> Collection[str]:
        """The messages that must wait until the processes which their last run has started have ended."""
        return frozenset().union(*(left.blocked for left in self._left)) if self._left else ()

    def discover(self, own_pids: Collection[int], now: float) -> None:
        """Note since when there are which children; called before the ends of worker processes are looked for."""
        before, first = self._since or {}, -math.inf if self._since is None else now
        self._since = {pid: before.get(pid, first) for pid in children_of(os.getpid()) if pid not in own_pids}

    def terminate_children_of(self, pid: int, keys: Collection[str], now: float) -> None:
        """Start to terminate the orphans of a worker process in which the messages `keys` ran."""
        self._left.append(LeftProcesses(pid, frozenset(keys), now))

    def proceed(self, own_pids: Collection[int], now: float) -> None:
        """Send the signals that are due, and forget the orphans that have ended."""
        if not self._left:
            return
        self.discover(own_pids, now)
        assert self._since is not None
        assigned = {key for left in self._left for key in left.keys}
        recent = keys_of(pid for pid, since in self._since.items() if since >= now - RECENT) - assigned
        self._left[-1].keys |= recent
        for left in list(self._left):
            if left.termination.proceed(now):
                log_children_ended(left.termination, parent=left.pid)
                self._left.remove(left)
