"""
Time limits of tasks that run in threads.

Decides when a task has had its time. At the soft limit an exception is raised in its thread. At the hard one nothing can
be done to a thread: the process is told (`over`), lets the others finish, and ends (`leaving`).
"""

from __future__ import annotations

import ctypes
import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from amqpworker.broker.waker import Waker
from amqpworker.errors import TimeLimitExceeded
from amqpworker.logs import get_logger

__all__ = ["Limits", "Overtaken", "Watch"]

log = get_logger(__name__)

IDLE = 3600.0
AGAIN = 0.01
MOST_STEPS = 1_000_000


class Overtaken(BaseException):
    """A run has ended after its message was taken care of: whatever it returned does not count any more."""


@dataclass(slots=True, eq=False)
class Watch:
    """One run that has limits; the times are monotonic, `inf` where there is none."""

    run: Any
    soft_at: float
    hard_at: float
    thread: int = field(default_factory=threading.get_ident)
    is_over: bool = False
    struck: bool = False


class Limits:
    """
    Watches runs that have limits, by one thread that starts with the first of them.

    `over` is called in that thread with a run that has reached its hard limit, once. Whoever pops a run from `_soft` or
    `_hard` owns what becomes of it: the run itself, as it ends, or the watcher that strikes, and whoever claims it.
    """

    def __init__(self, over: Callable[[Watch], None]) -> None:
        self._over = over
        self._soft: dict[int, Watch] = {}
        self._hard: dict[int, Watch] = {}
        self._wake = Waker()
        self._next = math.inf
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def call(self, run: Any, function: Callable[[], Any], soft: float, hard: float) -> Any:
        """
        Return what `function` returns, within `soft` and `hard` seconds (`inf` is no limit).

        Raises:
            TimeLimitExceeded: its time was up before it had ended.
            Overtaken: somebody else has claimed the run meanwhile.
        """
        now = time.monotonic()
        watch = Watch(run, now + soft, now + hard)
        try:
            # It may strike from here on, wherever the machine stands still for so long.
            self._enter(watch)
            value, error = attempted(function)
            self._disarm(watch)
        except TimeLimitExceeded as late:
            # It struck at the very end; there is one strike for each run, so that none comes any more.
            value, error = None, late
        self.end(watch)
        if error is not None:
            raise error
        return value

    def begin(self, run: Any, hard: float) -> Watch:
        """Watch a run that no exception can be raised in, such as a coroutine: for its hard limit only."""
        watch = Watch(run, math.inf, time.monotonic() + hard)
        self._enter(watch)
        return watch

    def end(self, watch: Watch) -> None:
        """
        Take a run back that has ended.

        Raises:
            Overtaken: somebody else has claimed it.
        """
        if watch.hard_at < math.inf and self._hard.pop(id(watch), None) is None:
            raise Overtaken

    def holds(self, watch: Watch) -> bool:
        """Tell whether a run with a hard limit still runs."""
        return id(watch) in self._hard

    def claim(self, watch: Watch) -> bool:
        """Take a run's message over; false where it has ended by itself."""
        return self._hard.pop(id(watch), None) is not None

    def _enter(self, watch: Watch) -> None:
        if self._thread is None:
            self._start()
        if watch.hard_at < math.inf:
            self._hard[id(watch)] = watch
        # The last step but one, and no lock behind it: an exception would leave that as it is.
        if watch.soft_at < math.inf:
            self._soft[id(watch)] = watch
        if min(watch.soft_at, watch.hard_at) < self._next:
            self._wake.set()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._watch, name="amqpworker-limits", daemon=True)
                thread.start()  # where there is no room for it, the next run tries again
                self._thread = thread

    def _disarm(self, watch: Watch) -> None:
        """See to it that no exception strikes any more; it may strike in here."""
        if watch.soft_at == math.inf or self._soft.pop(id(watch), None) is not None:
            return
        # No lock may be waited for here: the exception would leave it as it is.
        while not watch.struck:
            time.sleep(0)
        with suppress(TimeLimitExceeded):
            # Whether it has struck already cannot be seen. Another takes the place of one that is still to come, and is
            # met for certain; taking it back instead leaves CPython 3.11 with a mark that slows down every thread.
            strike(watch.thread)
            for _ in range(MOST_STEPS):
                pass

    # ---- the watcher's thread ---------------------------------------------------------------------------------------

    def _watch(self) -> None:
        while True:
            # Whoever enters meanwhile wakes us: they may have come too late for this look.
            self._next = math.inf
            due = self._look(time.monotonic())
            self._next = due
            self._wake.wait(min(max(0.0, due - time.monotonic()), IDLE))

    def _look(self, now: float) -> float:
        """Act on every limit that is reached; return when the next one is."""
        struck = False
        for key, watch in list(self._soft.items()):
            if watch.soft_at <= now and self._soft.pop(key, None) is not None:
                strike(watch.thread)
                watch.struck = True
                struck = True
        for watch in list(self._hard.values()):
            if watch.hard_at <= now and not watch.is_over:
                watch.is_over = True
                self._tell(watch)
        soft = [watch.soft_at for watch in list(self._soft.values())]
        # CPython forgets to look in the second of two threads that are struck at once, until another one wants to run.
        again = [now + AGAIN] if struck else []
        return min(
            [*again, *soft, *(one.hard_at for one in list(self._hard.values()) if not one.is_over)], default=math.inf
        )

    def _tell(self, watch: Watch) -> None:
        try:
            self._over(watch)
        except Exception as error:
            log.error("limit_not_told", exc_info=error)


def attempted(function: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    """Return what a function returns, or what it raises."""
    try:
        return function(), None
    except BaseException as error:  # noqa: BLE001 - it is raised again once no other can strike
        return None, error


def strike(thread: int) -> None:
    """
    Raise `TimeLimitExceeded` in a thread, as soon as it runs Python code.

    https://docs.python.org/3/c-api/init.html#c.PyThreadState_SetAsyncExc
    """
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(TimeLimitExceeded))
