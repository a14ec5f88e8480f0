"""
Time limits of tasks, and tasks that are cancelled while they run.

Decides when the time of a task is over. At the soft limit, or if the task is cancelled, an exception is raised in its thread,
and again every few seconds until the run has ended, but not while that would leave a lock held (`interruption`). A thread
cannot be ended, so at the hard limit the run is overdue: the process lets its other tasks finish, then ends.
"""

from __future__ import annotations

import ctypes
import itertools
import math
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from amqpworker.errors import TaskCancelled, TimeLimitExceeded
from amqpworker.ipc.exit_status import OVERDUE
from amqpworker.lifecycle import Waker, run_as_io_thread, start_thread
from amqpworker.log.logger import get_logger, task_context
from amqpworker.worker.limits.interruption import Safety, safety_at, wait_and_preempt, where

if TYPE_CHECKING:
    from amqpworker.model.message import Delivery
    from amqpworker.worker.context import Run

log = get_logger(__name__)

MAX_WAIT = 3600.0
# Between exceptions in two threads.
RAISE_PAUSE = 0.01
# Between two attempts while no exception may be raised.
FIRST_RETRY = 0.002
MAX_RETRY = 0.1
PREEMPT_STEP = 0.00005
# CPython raises such an exception at the next jump backwards, if not before: the first of these steps. It may forget to look
# while several threads are interrupted, until another asks for the interpreter's lock: 5 ms, a fraction of these steps.
MAX_STEPS = 1_000_000


@dataclass(frozen=True, slots=True)
class Pace:
    """
    The seconds between the steps against a run that is beyond its limit.

    * `repeat_after`: a task that continues after the exception, or swallows it, has this long to clean up before the next one.
    * `disrupt_after`: an exception that would cut off a log line or an import waits for at most this long.
    * `report_after`: the log names a run that has not ended this long after its limit.
    """

    repeat_after: float = 5.0
    disrupt_after: float = 5.0
    report_after: float = 10.0


class RunAbandoned(BaseException):
    """A run has ended after its message was settled: its result no longer counts."""


@dataclass(frozen=True, slots=True)
class CancelledRun:
    """
    A run that is to be ended, of a `delivery` in a `thread`.

    `is_over` returns whether the thread has settled it, `is_inside` whether the thread is in the code of the task: not before it,
    and not after it.
    """

    delivery: Delivery
    thread: int
    is_over: Callable[[], bool]
    is_inside: Callable[[], bool]


@dataclass(slots=True, eq=False)
class RunDeadline:
    """
    One run that has limits, or is cancelled; the times are monotonic, `inf` if there is none.

    `raise_at` is when the `error` is raised in its thread, and `report_at` when the log names it.
    """

    run: Run | None
    soft_at: float
    hard_at: float
    raise_at: float
    report_at: float
    thread: int = field(default_factory=threading.get_ident)
    is_overdue: bool = False
    raised: bool = False
    # The run has ended, and the watcher is about to raise: each writes one, and then reads the other.
    ended: bool = False
    raising: bool = False
    waits_since: float | None = None
    error: type[TimeLimitExceeded | TaskCancelled] = TimeLimitExceeded
    cancelled: CancelledRun | None = None
    """The run, if it has no limits: it is watched only since it was cancelled."""

    @property
    def delivery(self) -> Delivery | None:
        """The message of the run, if it is known."""
        if self.run is not None:
            return self.run.delivery
        return None if self.cancelled is None else self.cancelled.delivery

    @property
    def next_at(self) -> float:
        """When the next step is due."""
        hard_at = math.inf if self.is_overdue else self.hard_at
        return min(self.raise_at, self.report_at, hard_at)


class Limits:
    """
    Watches runs that have limits, by one thread that starts with the first of them at the latest.

    The thread calls `on_overdue` once for each run that has reached its hard limit. A run is settled by what removes it from
    `_runs`: its own thread when it ends, or `claim`.
    """

    def __init__(
        self,
        on_overdue: Callable[[RunDeadline], None] = lambda _: None,
        pace: Pace | None = None,
        is_cancelled: Callable[[Delivery], bool] | None = None,
    ) -> None:
        self._on_overdue = on_overdue
        self.is_cancelled = is_cancelled
        """Returns whether the message of a run is cancelled; None if that is never known here."""
        self.overdue: list[RunDeadline] = []
        """The runs that have reached their hard limit, in this order; some may have ended since."""
        self.pace = Pace() if pace is None else pace
        self._runs: dict[int, RunDeadline] = {}
        self.interruptions: dict[int, RunDeadline] = {}
        """The cancelled runs without limits: if there are any, a thread whose run has ended calls `end_interruptions`."""
        self._wake = Waker()
        # Different pauses, so that a thread in a loop is not always found at the same line.
        self._preempt_pauses = itertools.cycle(number * PREEMPT_STEP for number in range(1, 20))
        self._next = math.inf
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopped = False

    def call(self, run: Run, function: Callable[[], Any], soft: float, hard: float) -> Any:
        """
        Return what `function` returns, within `soft` and `hard` seconds (`inf` means without a limit).

        Raises TimeLimitExceeded at its soft limit, and RunAbandoned if another thread has claimed the run.
        """
        deadline = self._deadline(run, soft, hard)
        try:
            # It may be raised from here on, if the machine hangs for this long.
            self._enter(deadline)
            value, error = _attempted(function)
            self._disarm(deadline)
        except (TimeLimitExceeded, TaskCancelled) as late:
            # At the very end; the next one is due in a few seconds at the earliest.
            value, error = None, late
            self._disarm(deadline)
        self.unwatch(deadline)
        if error is not None:
            raise error
        return value

    def watch(self, run: Run, soft: float, hard: float) -> RunDeadline:
        """Watch a run in which another thread cannot raise an exception, such as a coroutine."""
        deadline = self._deadline(run, soft, hard)
        deadline.raise_at = math.inf
        self._enter(deadline)
        return deadline

    def unwatch(self, deadline: RunDeadline) -> None:
        """Stop watching a run that has ended; raises RunAbandoned if another thread has claimed it."""
        if not self.claim(deadline):
            raise RunAbandoned

    def interrupt(self, run: CancelledRun) -> None:
        """Raise TaskCancelled in a run, as at a soft limit; from any thread."""
        now = time.monotonic()
        report_at = now + self.pace.report_after
        deadline = next((one for one in list(self._runs.values()) if one.delivery is run.delivery), None)
        if deadline is None:
            deadline = RunDeadline(None, math.inf, math.inf, now, report_at, run.thread)
            deadline.error, deadline.cancelled = TaskCancelled, run
            self.interruptions[id(deadline)] = deadline
            self._enter(deadline)
        elif deadline.error is not TaskCancelled:
            deadline.error, deadline.report_at, deadline.raise_at = TaskCancelled, report_at, now
            self._wake.set()

    def end_interruptions(self) -> None:
        """
        Ensure that nothing is raised in this thread any more: its run has ended.

        If TaskCancelled is still raised in here, the caller calls this again.
        """
        thread = threading.get_ident()
        for deadline in list(self.interruptions.values()):
            if deadline.thread == thread:
                self._disarm(deadline)
                self._forget(deadline)

    def _forget(self, interruption: RunDeadline) -> None:
        self._runs.pop(id(interruption), None)
        self.interruptions.pop(id(interruption), None)

    def claim(self, deadline: RunDeadline) -> bool:
        """Take over the message of a run; return false if the run has ended by itself."""
        return self._runs.pop(id(deadline), None) is not None

    def beyond(self, seconds: float) -> list[RunDeadline]:
        """Return the runs that have exceeded their soft limit by `seconds`."""
        latest = time.monotonic() - seconds
        return [deadline for deadline in list(self._runs.values()) if deadline.soft_at <= latest]

    def report_overdue(self, seconds: float) -> None:
        """Treat runs that have exceeded their soft limit by `seconds` as those that have reached their hard limit."""
        for deadline in self.beyond(seconds):
            if deadline not in self.overdue:
                self._report_overdue(deadline)

    def count_overdue(self) -> int:
        """Return how many runs have reached their hard limit and not ended."""
        return sum(id(deadline) in self._runs for deadline in list(self.overdue))

    def stop(self) -> None:
        """End the thread that watches: for a program that continues without a worker."""
        self._stopped = True
        self._wake.set()

    def _deadline(self, run: Run, soft: float, hard: float) -> RunDeadline:
        now = time.monotonic()
        report_at = now + (soft if soft < hard else hard) + self.pace.report_after
        return RunDeadline(run, now + soft, now + hard, now + soft, report_at)

    def _enter(self, deadline: RunDeadline) -> None:
        if self._thread is None:
            self.start()
        self._runs[id(deadline)] = deadline
        # Spelled out: each run of a task that has limits comes here.
        if deadline.raise_at < self._next or deadline.hard_at < self._next or deadline.report_at < self._next:
            self._wake.set()

    def start(self) -> None:
        """Start the thread that watches, unless it runs; before the first run of a worker, so that no run fails for that."""
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
        deadline.ended = True
        if deadline.raise_at == math.inf:
            return
        # No lock may be waited for here: the exception would leave it as it is. A child that the run has forked meanwhile has no
        # watcher, which would never be done.
        while deadline.raising and os.getpid() == self._process:
            time.sleep(0)
        if not deadline.raised:
            return
        with suppress(TimeLimitExceeded, TaskCancelled):
            # Whether it has been raised already cannot be seen. Another takes the place of one that is still to come, and
            # is met for certain; taking it back instead leaves CPython 3.11 with a mark that slows down every thread.
            RAISE(deadline.thread, TimeLimitExceeded)
            for _ in range(MAX_STEPS):
                pass

    # ---- the watcher's thread ---------------------------------------------------------------------------------------

    def _watch(self) -> None:
        while not self._stopped:
            # A run that is added meanwhile wakes this thread: it may be too late for this check.
            self._next = math.inf
            due = self._check(time.monotonic())
            self._next = due
            self._wake.wait(min(max(0.0, due - time.monotonic()), MAX_WAIT))

    def _check(self, now: float) -> float:
        """Act on every limit that is reached; return when the next step is due."""
        raised = False
        for deadline in list(self._runs.values()):
            # CPython forgets to look in the second of two threads that are interrupted at once: one after the other.
            if deadline.raise_at <= now:
                deadline.raise_at = now + RAISE_PAUSE
                raised = raised or self._raise_safely(deadline, now)
            if deadline.report_at <= now:
                deadline.report_at = math.inf
                self._report(deadline, now)
            if deadline.hard_at <= now and not deadline.is_overdue:
                deadline.is_overdue = True
                self._report_overdue(deadline)
        pause = [now + RAISE_PAUSE] if raised else []
        return min([*pause, *(deadline.next_at for deadline in list(self._runs.values()))], default=math.inf)

    def _raise_safely(self, deadline: RunDeadline, now: float) -> bool:
        try:
            return self._raise(deadline, now)
        except Exception as error:
            # This thread keeps the limits of all other runs, too.
            deadline.raise_at = now + self.pace.repeat_after
            log.error("limit_not_enforced", exc_info=error)
            return False

    def _raise(self, deadline: RunDeadline, now: float) -> bool:
        """Raise the exception in a run's thread, or plan another attempt soon; return whether it was raised."""
        if deadline.cancelled is not None and deadline.cancelled.is_over():
            self._forget(deadline)
            return False
        deadline.waits_since = now if deadline.waits_since is None else deadline.waits_since
        waited = now - deadline.waits_since
        deadline.raise_at = now + min(max(FIRST_RETRY, waited / 50), MAX_RETRY)
        # A fresh turn with the interpreter's lock: no other thread takes it for a while.
        wait_and_preempt(next(self._preempt_pauses) if waited > RAISE_PAUSE else 0)
        deadline.raising = True
        try:
            run = deadline.cancelled
            # Only now, with the interpreter's lock: the thread may have begun with its next message meanwhile.
            if run is not None and (run.is_over() or not run.is_inside()):
                return False
            safety = safety_at(deadline.thread, LIMITS_CODE)
            if deadline.ended or safety is Safety.UNSAFE:
                return False
            if safety is Safety.DISRUPTIVE and waited < self.pace.disrupt_after:
                return False
            RAISE(deadline.thread, deadline.error)
            deadline.raised = True
        finally:
            deadline.raising = False
        deadline.waits_since = None
        deadline.raise_at = now + self.pace.repeat_after
        return True

    def _report(self, deadline: RunDeadline, now: float) -> None:
        if deadline.error is TaskCancelled:
            self._report_cancelled(deadline)
            return
        task_context.set(deadline.run)
        over = round(now - min(deadline.soft_at, deadline.hard_at), 1)
        effect = f"its process is replaced {OVERDUE:g} s after its limit" if deadline.hard_at == math.inf else None
        log.warning("task_over_limit", over=over, at=where(deadline.thread), effect=effect)
        task_context.set(None)

    def _report_cancelled(self, deadline: RunDeadline) -> None:
        assert deadline.delivery is not None
        properties = deadline.delivery.properties
        at, effect = where(deadline.thread), "it is interrupted again every few seconds"
        log.warning("cancel_ignored", task=properties.type, id=properties.message_id, at=at, effect=effect)

    def _report_overdue(self, deadline: RunDeadline) -> None:
        self.overdue.append(deadline)
        try:
            self._on_overdue(deadline)
        except Exception as error:
            log.error("limit_not_enforced", exc_info=error)


_AROUND = (
    Limits.call,
    Limits.unwatch,
    Limits.claim,
    Limits.end_interruptions,
    Limits._enter,  # noqa: SLF001
    Limits._disarm,  # noqa: SLF001
    Limits._forget,  # noqa: SLF001
)
LIMITS_CODE = frozenset(one.__code__ for one in _AROUND)
"""What runs around a task: an exception there would not be the task's."""


def _attempted(function: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    try:
        return function(), None
    except BaseException as error:  # noqa: BLE001 - it is raised again once no other can be raised in this thread
        return None, error


# Raises an exception in a thread as soon as it runs Python code.
# https://docs.python.org/3/c-api/init.html#c.PyThreadState_SetAsyncExc
RAISE = ctypes.pythonapi.PyThreadState_SetAsyncExc
RAISE.argtypes = (ctypes.c_ulong, ctypes.py_object)
