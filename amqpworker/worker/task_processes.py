"""
The processes that tasks of this process have started: they end with it, and it reaps those that it has adopted.

Decides which ended children no other code waits for: adopted orphans. The app's own code reaps its own children, which are
recognized by the thread that forked them, by the fork, or by their `Popen`.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from amqpworker.ipc.descendants import (
    CAN_ADOPT,
    TERM_GRACE,
    ProcessKey,
    adopt_orphans,
    children_of,
    descendants_of,
    stat_of,
    terminate_all,
)
from amqpworker.ipc.exit_status import log_children_ended
from amqpworker.log.logger import get_logger

log = get_logger(__name__)

# An adopted process that has ended is reaped after this long.
REAP_AFTER = 5.0
CHECK_SECONDS = 1.0
# How long pools of `multiprocessing`, which replace a process that has ended, have to end themselves.
POOLS_END = 2.0


class TaskProcesses:
    """
    The descendants of this process, whose orphans it adopts from now on; one thread uses it.

    If not `ours` (the process belongs to another program), nothing is adopted, reaped or ended.
    If `tasks_here`, tasks run in the first thread, whose children also include the adopted orphans. There, a child counts as
    adopted if it was seen below another child before, or if an earlier run left it.
    """

    def __init__(self, ours: bool = True, tasks_here: bool = False) -> None:
        self._ours = ours and CAN_ADOPT
        self._tasks_here = tasks_here
        self._process = os.getpid()
        # Its keys; a dictionary, since each change of it is one step.
        self._forked: dict[int, None] = {}
        self._ended: dict[int, float] = {}
        self._held: set[int] = set()
        self._deeper: set[int] = set()
        self._left: set[int] = set()
        self._check_at = self._search_at = 0.0
        if self._ours:
            adopt_orphans()
            os.register_at_fork(after_in_parent=self._note_fork)

    def _note_fork(self) -> None:
        """Remember the child that this thread has just forked: the app's code waits for it, perhaps in another thread."""
        if os.getpid() == self._process:
            with suppress(OSError):
                for pid in _children_in(threading.get_native_id())[-1:]:
                    self._forked[pid] = None

    def tidy(self, now: float) -> None:
        """Reap adopted processes that have ended; `now` is monotonic."""
        if not self._ours or now < self._check_at:
            return
        self._check_at = now + CHECK_SECONDS
        if self._tasks_here:
            self._note_deeper()
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            found = None
        self._forget_forked()
        # Orphans come to the first thread; the children of the others are the app's own.
        here = [] if found is None else [pid for pid in _children_in(self._process) if self._is_adopted(pid)]
        ended = {pid for pid in here if (stat := stat_of(pid)) is not None and stat[0] == "Z"}
        self._ended = {pid: self._ended.get(pid, now) for pid in ended}
        self._held &= ended
        due = {pid for pid, since in self._ended.items() if since <= now - REAP_AFTER} - self._held
        if due and now >= self._search_at:
            self._search_at = now + REAP_AFTER
            self._held |= due & waited_for()
            for pid in due - self._held:
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)

    def on_run_ended(self) -> None:
        """Note that no code waits any more for the present children; called after a run in the first thread."""
        if self._ours:
            self._left = children_of(self._process)

    def _is_adopted(self, pid: int) -> bool:
        return pid not in self._forked and (not self._tasks_here or pid in self._deeper or pid in self._left)

    def _note_deeper(self) -> None:
        """Note the children of a child: each counts as adopted as soon as it is a child of this process itself."""
        found = {pid for pid, _ in descendants_of(self._process)} - children_of(self._process)
        self._deeper = found | {pid for pid in self._deeper if stat_of(pid) is not None}

    def _forget_forked(self) -> None:
        """Forget forked children that the app has waited for: another process may have such an id by now."""
        if forked := list(self._forked):  # listed first: what is forked meanwhile is kept
            children = children_of(self._process)
            for pid in forked:
                if pid not in children:
                    self._forked.pop(pid, None)

    def end(self, before: Callable[[], None] = lambda: None) -> None:
        """End all processes that this process has started, and what these have left; if there are any, call `before` first."""
        if not self._ours or not self._running():
            return
        before()
        _end_pools()
        log_children_ended(terminate_all(self._running, TERM_GRACE))

    def _running(self) -> set[ProcessKey]:
        # The one that `multiprocessing` has clean up after this process ends by itself.
        tracker = getattr(sys.modules.get("multiprocessing.resource_tracker"), "_resource_tracker", None)
        spared = getattr(tracker, "_pid", None)
        return {one for one in descendants_of(self._process) if one[0] != spared}


def _children_in(thread: int) -> list[int]:
    """Return the children of a thread of this process, the newest last."""
    return [int(pid) for pid in Path(f"/proc/self/task/{thread}/children").read_bytes().split()]


def waited_for() -> set[int]:
    """Return the processes for which a Python object (a `Popen`) waits; finding these objects takes a while."""
    forks: Any = getattr(sys.modules.get("multiprocessing.popen_fork"), "Popen", subprocess.Popen)
    held = [one for one in gc.get_objects() if issubclass(type(one), (subprocess.Popen, forks))]
    return {pid for one in held if isinstance(pid := getattr(one, "pid", None), int)}


def _end_pools() -> None:
    """Have `multiprocessing` end its pools, as at the interpreter's exit."""
    finalize = getattr(sys.modules.get("multiprocessing.util"), "_run_finalizers", None)
    if finalize is not None:
        ends = threading.Thread(target=finalize, args=(0,), name="amqpworker-pools", daemon=True)
        with suppress(RuntimeError):  # there is no room for a thread
            ends.start()
            ends.join(POOLS_END)
