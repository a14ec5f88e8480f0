"""
A thread that starts at most once, and whose start and end can be asked for anywhere.

Decides nothing. No lock is taken: a signal handler may start or stop it while it interrupts either.
"""

from __future__ import annotations

import threading
from _thread import TIMEOUT_MAX, allocate_lock, start_new_thread
from collections.abc import Callable

from amqpworker.lifecycle import THREAD_LIMIT, in_io_thread, run_as_io_thread

__all__ = ["OneThread"]

NO_THREAD = (
    "No thread can be started to talk to RabbitMQ ({}). While the interpreter exits, Python 3.12 and later start none: what "
    "is sent at exit needs a connection that was made before."
)
NO_ROOM_FOR_IT = f"No thread can be started to talk to RabbitMQ: {THREAD_LIMIT}."
# Seconds for a thread to leave that has done everything.
LAST_STEP = 0.5


class OneThread:
    """A thread that keeps a connection: it calls `run`, then `finished`; `cannot_start` is told why, where it cannot be had."""

    def __init__(self, run: Callable[[], None], name: str, cannot_start: Callable[[str], None]) -> None:
        self._thread = threading.Thread(target=run_as_io_thread, args=(run,), name=name, daemon=True)
        self._cannot_start = cannot_start
        # Taken out, in one step, by who may start the thread, or by who wants that it never starts.
        self._unstarted = [self._thread]
        self._asked = self._finished = False
        # Held until then.
        self._end = allocate_lock()
        self._end.acquire()

    def start(self) -> None:
        """Start it; any number of times."""
        self._asked = True
        try:
            # By a thread of its own: a signal handler that interrupts `Thread.start` would wait for what it has stopped.
            start_new_thread(self._start, ())
        except RuntimeError as error:
            if self.prevent():
                self._cannot_start(why_not(error))

    def _start(self) -> None:
        if self.prevent():
            try:
                self._thread.start()
            except RuntimeError as error:
                self._cannot_start(why_not(error))

    def prevent(self) -> bool:
        """Have it not start; false where it has, or never will."""
        try:
            self._unstarted.pop()
        except IndexError:
            return False
        return True

    @property
    def alive(self) -> bool:
        """Whether it runs, or is about to."""
        return self._asked and not self._finished

    def finished(self) -> None:
        """Note that it has done everything, or has nothing to do; once."""
        self._finished = True
        self._end.release()

    def join(self, timeout: float) -> bool:
        """Wait until it has finished, unless this is a thread that must not wait; false where it has not, in time."""
        if not self._finished:
            if in_io_thread() or not self._end.acquire(timeout=min(max(timeout, 0.0), TIMEOUT_MAX)):
                return False
            self._end.release()
        if self._thread.is_alive():
            self._thread.join(LAST_STEP)
        return True


def why_not(error: RuntimeError) -> str:
    """Return why a thread could not be started."""
    return NO_THREAD.format(error) if "exit" in str(error) or "shutdown" in str(error) else NO_ROOM_FOR_IT
