"""
The processes that an isolated process has started, which its worker process adopts when it ends.

Decides which processes these are: those that were its descendants when that was checked, its process group, and those that
have its mark in their environment. A process whose environment was cleaned belongs to the run in which it was started, if
that run crashed.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from amqpworker.ipc.descendants import (
    CAN_ADOPT,
    MARK,
    ProcessKey,
    alive_with_descendants,
    children_of,
    descendants_of,
    group_members,
    terminate_all,
)
from amqpworker.ipc.exit_status import log_children_ended
from amqpworker.worker.task_processes import waited_for

# What start times are counted in.
TICK = 1 / os.sysconf("SC_CLK_TCK")


class Leftovers:
    """The leftovers of one isolated process; one thread uses it at a time."""

    def __init__(self) -> None:
        self._mark = f"{os.getpid()}-{time.monotonic_ns()}"
        self._run_started = 0.0
        self._seen: set[ProcessKey] = set()
        self.on_run_started()

    def environment(self) -> dict[str, str]:
        """Return the environment for the isolated process, which its descendants inherit."""
        return {**os.environ, MARK: self._mark}

    def on_run_started(self) -> None:
        """Note that a run begins."""
        if CAN_ADOPT:
            self._run_started = time.clock_gettime(time.CLOCK_BOOTTIME)

    def note_descendants(self, pid: int) -> None:
        """Note the descendants of the isolated process."""
        self._seen = alive_with_descendants(self._seen) | descendants_of(pid)

    def note_group(self, pid: int) -> None:
        """Note the other processes of its process group, before the isolated process is reaped."""
        self._seen |= {one for one in group_members(pid) if one[0] != pid}

    def note_adopted(self) -> None:
        """Note what this process has adopted from its last run, after that has crashed."""
        if MARK not in os.environ:
            return  # it could not be distinguished from what this process has started itself
        me, since = os.getpid(), self._run_started - TICK
        marks = {one: _mark_of(one[0]) for one in descendants_of(me)}
        self._seen |= {one for one, mark in marks.items() if mark == self._mark}
        if unmarked := {one for one, mark in marks.items() if mark == "" and one[1] * TICK >= since}:
            adopted = children_of(me) - waited_for()
            self._seen |= {one for one in unmarked if one[0] in adopted}

    def any(self) -> bool:
        """Return whether there is something to be ended."""
        return bool(self._living())

    def end(self, pid: int) -> None:
        """End what the isolated process has left, and wait until that has ended."""
        if self._living():
            log_children_ended(terminate_all(self._living), child=pid)

    def _living(self) -> set[ProcessKey]:
        self._seen = alive_with_descendants(self._seen)
        marked = {one for one in descendants_of(os.getpid()) - self._seen if _mark_of(one[0]) == self._mark}
        self._seen |= marked
        return self._seen


def _mark_of(pid: int) -> str | None:
    """Return the mark of a process, "" if its environment has none, None if that cannot be read."""
    try:
        found = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    prefix = f"{MARK}=".encode()
    return next((one.removeprefix(prefix).decode() for one in found if one.startswith(prefix)), "")
