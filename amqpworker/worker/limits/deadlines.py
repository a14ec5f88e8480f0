"""
Time limits of tasks.

Decides when the time of a task is over. At the soft limit an exception is raised in its thread, and again every few seconds
until the run has ended, but not while that would leave a lock held (`interruption`). At the hard limit, since a thread
cannot be ended, `over` is called: the process lets its other tasks finish, then ends.
"""

from __future__ import annotations

import ctypes
import itertools
import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from amqpworker.errors import TimeLimitExceeded
from amqpworker.ipc.exit_status import OVERDUE
from amqpworker.lifecycle import Waker, run_as_io_thread, start_thread
from amqpworker.log.logger import get_logger, task_context
from amqpworker.worker.limits.interruption import Hold, hold_at, wait_and_preempt, where

if TYPE_CHECKING:
    from amqpworker.worker.context import Run

log = get_logger(__name__)

IDLE = 3600.0
AGAIN = 0.01
SOON = 0.002
SELDOM = 0.1
GLANCE = 0.00005
# CPython raises such an exception at the next jump backwards, if not before: the first of these steps. It may forget to look
# while several threads are interrupted, until another asks for the interpreter's lock: 5 ms, a fraction of these steps.
STEPS = 1_000_000


@dataclass(frozen=True, slots=True)
class Pace:
    """
    The seconds between the steps against a run that is beyond its limit.

    * `again`: a task that continues after the exception, or swallows it, has this long to clean up before the next one.
    * `briefly`: an exception that would only cut off a log line or an import is held back for at most this long.
    * `report`: the log names a run that has not ended this long after its limit.
    """

    again: float = 5.0
    briefly: float = 5.0
    report: float = 10.0


class RunAbandoned(BaseException):
    """A run has ended after its message was settled: its result no longer counts."""


@dataclass(slots=True, eq=False)
class RunDeadline:
    """
    One run that has limits; the times are monotonic, `inf` if there is none.

    `raise_at` is when the exception is raised in its thread, and `report_at` when the log names it.
    """

    run: Run
    soft_at: float
    hard_at: float
    raise_at: float
    report_at: float
    thread: int = field(default_factory=threading.get_ident)
    is_over: bool = False
    raised: bool = False
    # The run has ended, and the watcher is about to raise: each writes one, and then reads the other.
    ended: bool = False
    raising: bool = False
    held_since: float | None = None

    @property
    def next_at(self) -> float:
        """When the next step is due."""
        hard_at = math.inf if self.is_over else self.hard_at
        return min(self.raise_at, self.report_at, hard_at)


class Limits:
    """
    Watches runs that have limits, by one thread that starts with the first of them at the latest.

    The thread calls `over` once for each run that has reached its hard limit. Whichever pops a run from `_runs` owns its
    message: the run itself, as it ends, or the process that claims it.
    """

    def __init__(self, over: Callable[[RunDeadline], None], pace: Pace | None = None) -> None:
        self._over = over
        self.pace = Pace() if pace is None else pace
        self._report_after = self.pace.report
        self._runs: dict[int, RunDeadline] = {}
        self._wake = Waker()
        # Different pauses, so that a thread in a loop is not always found at the same line.
        self._glances = itertools.cycle(number * GLANCE for number in range(1, 20))
        self._next = math.inf
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def call(self, run: Run, function: Callable[[], Any], soft: float, hard: float) -> Any:
        """
        Return what `function` returns, within `soft` and `hard` seconds (`inf` means without a limit).

        Raises:
            TimeLimitExceeded: it reached its soft limit before it had ended.
            RunAbandoned: another thread has claimed the run.
        """
        now = time.monotonic()
        deadline = RunDeadline(run, now + soft, now + hard, now + soft, self._report_at(now, soft, hard))
        try:
            # It may be raised from here on, if the machine hangs for this long.
            self._enter(deadline)
            value, error = _attempted(function)
            self._disarm(deadline)
        except TimeLimitExceeded as late:
            # At the very end; the next one is due in a few seconds at the earliest.
            value, error = None, late
            self._disarm(deadline)
        self.unwatch(deadline)
        if error is not None:
            raise error
        return value

    def watch(self, run: Run, soft: float, hard: float) -> RunDeadline:
        """Watch a run in which another thread cannot raise an exception, such as a coroutine."""
        now = time.monotonic()
        deadline = RunDeadline(run, now + soft, now + hard, math.inf, self._report_at(now, soft, hard))
        self._enter(deadline)
        return deadline

    def unwatch(self, deadline: RunDeadline) -> None:
        """
        Stop watching a run that has ended.

        Raises:
            RunAbandoned: another thread has claimed it.
        """
        if self._runs.pop(id(deadline), None) is None:
            raise RunAbandoned

    def is_running(self, deadline: RunDeadline) -> bool:
        """Return whether a run still runs."""
        return id(deadline) in self._runs

    def claim(self, deadline: RunDeadline) -> bool:
        """Take over the message of a run; return false if the run has ended by itself."""
        return self._runs.pop(id(deadline), None) is not None

    def overdue(self, seconds: float) -> list[RunDeadline]:
        """Return the runs that have exceeded their soft limit by `seconds`."""
        latest = time.monotonic() - seconds
        return [deadline for deadline in list(self._runs.values()) if deadline.soft_at <= latest]

    def _report_at(self, now: float, soft: float, hard: float) -> float:
        return now + (soft if soft < hard else hard) + self._report_after

    def _enter(self, deadline: RunDeadline) -> None:
        if self._thread is None:
            self.start()
        self._runs[id(deadline)] = deadline
        # Spelled out: each run of a task that has limits comes here.
        if deadline.raise_at < self._next or deadline.hard_at < self._next or deadline.report_at < self._next:
            self._wake.set()

    def start(self) -> None:
        """
        Start the thread that watches, unless it runs; a worker does this before the first run, which would fail otherwise.

        Raises:
            ThreadLimitReached: there is no room for it.
        """
        with self._lock:
            if self._thread is None:
                # Its lines are queued like those of I/O threads: limits must be kept although a handler hangs.
                thread = threading.Thread(
                    target=run_as_io_thread, args=(self._watch,), name="amqpworker-limits", daemon=True
                )
                start_thread(thread)  # if there is no room for it, the next run tries again
                self._thread = thread

    def _disarm(self, deadline: RunDeadline) -> None:
        """Ensure that no exception is raised any more; if one is still raised in here, the caller calls this again."""
        if deadline.raise_at == math.inf:
            return
        deadline.ended = True
        # No lock may be waited for here: the exception would leave it as it is.
        while deadline.raising:
            time.sleep(0)
        if not deadline.raised:
            return
        with suppress(TimeLimitExceeded):
            # Whether it has been raised already cannot be seen. Another takes the place of one that is still to come, and
            # is met for certain; taking it back instead leaves CPython 3.11 with a mark that slows down every thread.
            RAISE(deadline.thread, TimeLimitExceeded)
            for _ in range(STEPS):
                pass

    # ---- the watcher's thread ---------------------------------------------------------------------------------------

    def _watch(self) -> None:
        while True:
            # A run that is added meanwhile wakes this thread: it may be too late for this check.
            self._next = math.inf
            due = self._check(time.monotonic())
            self._next = due
            self._wake.wait(min(max(0.0, due - time.monotonic()), IDLE))

    def _check(self, now: float) -> float:
        """Act on every limit that is reached; return when the next step is due."""
        raised = False
        for deadline in list(self._runs.values()):
            # CPython forgets to look in the second of two threads that are interrupted at once: one after the other.
            if deadline.raise_at <= now:
                deadline.raise_at = now + AGAIN
                raised = raised or self._raise_safely(deadline, now)
            if deadline.report_at <= now:
                deadline.report_at = math.inf
                self._report(deadline, now)
            if deadline.hard_at <= now and not deadline.is_over:
                deadline.is_over = True
                self._report_hard_limit(deadline)
        again = [now + AGAIN] if raised else []
        return min([*again, *(deadline.next_at for deadline in list(self._runs.values()))], default=math.inf)

    def _raise_safely(self, deadline: RunDeadline, now: float) -> bool:
        try:
            return self._raise(deadline, now)
        except Exception as error:
            # This thread keeps the limits of all other runs, too.
            deadline.raise_at = now + self.pace.again
            log.error("limit_not_enforced", exc_info=error)
            return False

    def _raise(self, deadline: RunDeadline, now: float) -> bool:
        """Raise the exception in a run's thread, or plan another attempt soon; return whether it was raised."""
        deadline.held_since = now if deadline.held_since is None else deadline.held_since
        held = now - deadline.held_since
        deadline.raise_at = now + min(max(SOON, held / 50), SELDOM)
        # A fresh turn with the interpreter's lock: no other thread takes it for a while.
        wait_and_preempt(next(self._glances) if held > AGAIN else 0)
        deadline.raising = True
        try:
            hold = hold_at(deadline.thread, OWN)
            if deadline.ended or hold is None or hold is Hold.FULL or (hold is Hold.BRIEF and held < self.pace.briefly):
                return False
            RAISE(deadline.thread, TimeLimitExceeded)
            deadline.raised = True
        finally:
            deadline.raising = False
        deadline.held_since = None
        deadline.raise_at = now + self.pace.again
        return True

    def _report(self, deadline: RunDeadline, now: float) -> None:
        task_context.set(deadline.run)
        over = round(now - min(deadline.soft_at, deadline.hard_at), 1)
        effect = f"its process is replaced {OVERDUE:g} s after its limit" if deadline.hard_at == math.inf else None
        log.warning("task_over_limit", over=over, at=where(deadline.thread), effect=effect)
        task_context.set(None)

    def _report_hard_limit(self, deadline: RunDeadline) -> None:
        try:
            self._over(deadline)
        except Exception as error:
            log.error("limit_not_enforced", exc_info=error)


OWN = frozenset(one.__code__ for one in (Limits.call, Limits.unwatch, Limits._enter, Limits._disarm))  # noqa: SLF001
"""What runs around a task: an exception there would not be the task's."""


def _attempted(function: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    """Return what a function returns, or what it raises."""
    try:
        return function(), None
    except BaseException as error:  # noqa: BLE001 - it is raised again once no other can be raised in this thread
        return None, error


# Raises an exception in a thread as soon as it runs Python code.
# https://docs.python.org/3/c-api/init.html#c.PyThreadState_SetAsyncExc
RAISE = ctypes.pythonapi.PyThreadState_SetAsyncExc
RAISE.argtypes = (ctypes.c_ulong, ctypes.py_object)
