"""
The processes that a process has started, daemons of theirs included: how they are found, and how they are ended.

Decides what is sent: SIGTERM, and SIGKILL to what is left after `TERM_GRACE` seconds. A process that adopts orphans (Linux:
a subreaper) has all of them below it for as long as it lives; when it has ended, the next subreaper above it has them.
Only the standard library is imported: the supervisor's heir uses this, too.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

__all__ = [
    "CAN_ADOPT",
    "MARK",
    "TERM_GRACE",
    "Ending",
    "Known",
    "adopt_orphans",
    "children_of",
    "descendants_of",
    "end_all",
    "group_of",
    "known",
    "living",
    "stat_of",
]

PR_SET_CHILD_SUBREAPER = 36
TERM_GRACE = 5.0
# What is in the kernel when it is killed takes a moment.
KILL_GRACE = 2.0
PAUSE = 0.02
# A look at children may miss one whose sibling ends that moment (proc(5)).
EMPTY_LOOKS = 2

CAN_ADOPT = sys.platform == "linux" and os.path.exists(f"/proc/self/task/{os.getpid()}/children")
"""Whether a process can be given the orphans of its descendants, and can find them."""

MARK = "_AMQPWORKER_PROCESS"
"""In the environment of a worker process, and so of all that it starts; an isolated process has a value of its own."""

Known = tuple[int, int]
"""A process: its id and its start time, so that another one with its id is not taken for it."""


def adopt_orphans() -> None:
    """
    Have this process become the parent of what its descendants leave behind, if the system can do this.

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
    """Return the children of a process, with those that have ended and were not waited for."""
    found: set[int] = set()
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError), open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found.update(map(int, file.read().split()))
    return found


def known(pids: Iterable[int]) -> set[Known]:
    """Return those of these processes that have not ended."""
    found = ((pid, stat_of(pid)) for pid in pids)
    return {(pid, stat[2]) for pid, stat in found if stat is not None and stat[0] not in "ZX"}


def descendants_of(pid: int) -> set[Known]:
    """Return all descendants of a process that have not ended."""
    found: set[Known] = set()
    waiting, seen = children_of(pid), {pid}
    while waiting:
        seen |= waiting
        found |= known(waiting)
        waiting = set().union(*map(children_of, waiting)) - seen
    return found


def living(of: Iterable[Known]) -> set[Known]:
    """Return those of these processes that have not ended, with their descendants."""
    there = known(pid for pid, _ in of) & set(of)
    return there.union(*(descendants_of(pid) for pid, _ in there))


def group_of(number: int) -> set[Known]:
    """Return the processes of a process group that have not ended."""
    everything = (int(name) for name in os.listdir("/proc") if name.isdecimal()) if CAN_ADOPT else ()
    return known(pid for pid in everything if (stat := stat_of(pid)) is not None and stat[1] == number)


class Ending:
    """The end of the processes that `find` returns each time it is asked, from `now` on (monotonic)."""

    def __init__(self, find: Callable[[], set[Known]], now: float, grace: float = TERM_GRACE) -> None:
        self._find = find
        self._kill_at = now + grace
        self._give_up_at = self._kill_at + KILL_GRACE
        self._empty = 0
        self._forbidden: set[Known] = set()
        self.asked: set[Known] = set()
        self.killed: set[Known] = set()
        self.left: set[Known] = set()
        """What was there at the last look, other users' processes aside."""

    @property
    def survivors(self) -> set[Known]:
        """What has not ended: it is in the kernel, or is another user's."""
        return self.left | living(self._forbidden)

    def proceed(self, now: float) -> bool:
        """Send what is due, and return whether all have ended, or whatever has not is given up."""
        self.left = left = self._find() - self._forbidden
        self._empty = 0 if left else self._empty + 1
        for one in left - self.asked:
            self._send(one, signal.SIGTERM)
        self.asked |= left
        if now >= self._kill_at:
            for one in left:
                self._send(one, signal.SIGKILL)
            self.killed |= left
        return self._empty >= EMPTY_LOOKS or now >= self._give_up_at

    def _send(self, one: Known, number: signal.Signals) -> None:
        pid, started = one
        stat = stat_of(pid)
        if stat is not None and stat[2] == started:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass
            except PermissionError:  # another user's, such as what was started by sudo
                self._forbidden.add(one)


def end_all(find: Callable[[], set[Known]], grace: float = TERM_GRACE) -> Ending:
    """End the processes that `find` returns, and wait for it."""
    ending = Ending(find, time.monotonic(), grace)
    pause = select.poll()
    while not ending.proceed(time.monotonic()):
        pause.poll(PAUSE * 1000)
    return ending
