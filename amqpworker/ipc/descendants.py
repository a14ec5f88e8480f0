"""
The descendants of a process, including their daemons: how they are found, and how they are terminated.

Decides which signals are sent: SIGTERM, and SIGKILL to what is left after `TERM_GRACE` seconds. A process that adopts orphans
(on Linux a subreaper) keeps them below it as long as it lives; afterwards the next subreaper above it adopts them.
Imports the standard library only: the supervisor's orphan reaper, which must be small, uses this module, too.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

PR_SET_CHILD_SUBREAPER = 36
TERM_GRACE = 5.0
# A process that is in a system call when it is killed needs a moment to end.
KILL_GRACE = 2.0
TERMINATION_CHECK_INTERVAL = 0.02
# Reading the list of children may miss one whose sibling ends at that moment (proc(5)).
EMPTY_CHECKS = 2

CAN_ADOPT = sys.platform == "linux" and os.path.exists(f"/proc/self/task/{os.getpid()}/children")
"""Whether a process can adopt the orphans of its descendants, and can find them."""

MARK = "_AMQPWORKER_PROCESS"
"""In the environment of a worker process, and thus of its descendants; each isolated process has a value of its own."""

ProcessKey = tuple[int, int]
"""Identifies a process by its id and its start time: ids are reused."""


def adopt_orphans() -> None:
    """
    Make this process the parent of its descendants' orphans, if the system supports that.

    https://man7.org/linux/man-pages/man2/PR_SET_CHILD_SUBREAPER.2const.html
    """
    if CAN_ADOPT:
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def stat_of(pid: int) -> tuple[str, int, int] | None:
    """Return the state of a process, its process group and its start time; None if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return fields[0].decode(), int(fields[2]), int(fields[19])
    except (OSError, IndexError, ValueError):
        return None


def children_of(pid: int) -> set[int]:
    """Return the children of a process, including zombies."""
    found: set[int] = set()
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError), open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found.update(map(int, file.read().split()))
    return found


def keys_of(pids: Iterable[int]) -> set[ProcessKey]:
    """Return the keys of those of these processes that have not ended."""
    found = ((pid, stat_of(pid)) for pid in pids)
    return {(pid, stat[2]) for pid, stat in found if stat is not None and not (stat[0] in "ZX" and _has_ended(pid))}


def _has_ended(pid: int) -> bool:
    """
    Return whether all threads of a process whose first thread has ended have ended too.

    Until then it keeps its children, although it is shown as a zombie; they are passed on before its last thread disappears.
    """
    try:
        return len(os.listdir(f"/proc/{pid}/task")) <= 1
    except OSError:
        return True


def descendants_of(pid: int) -> set[ProcessKey]:
    """Return all descendants of a process that have not ended."""
    found: set[ProcessKey] = set()
    waiting, seen = children_of(pid), {pid}
    while waiting:
        seen |= waiting
        found |= keys_of(waiting)
        waiting = set().union(*map(children_of, waiting)) - seen
    return found


def alive_with_descendants(keys: Iterable[ProcessKey]) -> set[ProcessKey]:
    """Return those of these processes that have not ended, with their descendants."""
    alive = keys_of(pid for pid, _ in keys) & set(keys)
    return alive.union(*(descendants_of(pid) for pid, _ in alive))


def group_members(number: int) -> set[ProcessKey]:
    """Return the processes of a process group that have not ended."""
    everything = (int(name) for name in os.listdir("/proc") if name.isdecimal()) if CAN_ADOPT else ()
    return keys_of(pid for pid in everything if (stat := stat_of(pid)) is not None and stat[1] == number)


class ProcessSet:
    """Processes, with what they start meanwhile; those that have ended are forgotten."""

    def __init__(self) -> None:
        self.keys: set[ProcessKey] = set()

    def alive(self) -> set[ProcessKey]:
        """Return those that have not ended."""
        self.keys = alive_with_descendants(self.keys)
        return self.keys


class Termination:
    """Ends the processes that `find` returns at each step, from `now` on (monotonic)."""

    def __init__(self, find: Callable[[], set[ProcessKey]], now: float, grace: float = TERM_GRACE) -> None:
        self._find = find
        self._kill_at = now + grace
        self._give_up_at = self._kill_at + KILL_GRACE
        self._empty = 0
        self._forbidden: set[ProcessKey] = set()
        self.terminated: set[ProcessKey] = set()
        self.killed: set[ProcessKey] = set()
        self.left: set[ProcessKey] = set()
        """What was alive at the last step, except processes of other users."""

    @property
    def survivors(self) -> set[ProcessKey]:
        """What has not ended: processes that are stuck in a system call, or belong to another user."""
        return self.left | alive_with_descendants(self._forbidden)

    def proceed(self, now: float) -> bool:
        """Send the signals that are due, and return whether all have ended, or the rest is given up."""
        self.left = left = self._find() - self._forbidden
        self._empty = 0 if left else self._empty + 1
        for key in left - self.terminated:
            self._send(key, signal.SIGTERM)
        self.terminated |= left
        if now >= self._kill_at:
            for key in left:
                self._send(key, signal.SIGKILL)
            self.killed |= left
        return self._empty >= EMPTY_CHECKS or now >= self._give_up_at

    def _send(self, key: ProcessKey, number: signal.Signals) -> None:
        pid, started = key
        stat = stat_of(pid)
        if stat is not None and stat[2] == started:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass
            except PermissionError:  # another user's, such as what was started by sudo
                self._forbidden.add(key)


def terminate_all(find: Callable[[], set[ProcessKey]], grace: float = TERM_GRACE) -> Termination:
    """End the processes that `find` returns, and wait until they have ended."""
    termination = Termination(find, time.monotonic(), grace)
    pause = select.poll()
    while not termination.proceed(time.monotonic()):
        pause.poll(TERMINATION_CHECK_INTERVAL * 1000)
    return termination
