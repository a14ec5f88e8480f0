"""
A thread that starts at most once, and may be started and stopped from anywhere.

No lock is taken: a signal handler may start or stop it while it interrupts either.
"""

from __future__ import annotations

import _thread  # its functions by attribute at each use: gevent may replace them after this import
import threading
from collections.abc import Callable

from amqpworker.lifecycle import THREAD_LIMIT, in_io_thread, run_as_io_thread

NO_THREAD = (
    "No thread can be started for the connection to RabbitMQ ({}). While the interpreter exits, Python 3.12 and later start "
    "none: what is sent at exit requires an existing connection."
)
NO_ROOM_FOR_IT = f"No thread can be started for the connection to RabbitMQ: {THREAD_LIMIT}."
# Seconds for a thread that has done its work to end.
LAST_STEP = 0.5


class SingleStartThread:
    """The thread of a connection: it calls `run`, then `finished`; `on_cannot_start` gets the reason if it cannot."""

    def __init__(self, run: Callable[[], None], name: str, on_cannot_start: Callable[[str], None]) -> None:
        self._thread = threading.Thread(target=run_as_io_thread, args=(run,), name=name, daemon=True)
        self._on_cannot_start = on_cannot_start
        # Popped, in one step, by whichever may start the thread or prevents its start.
        self._unstarted = [self._thread]
        self._finished = False
        # Held until then.
        self._end = _thread.allocate_lock()
        self._end.acquire()

    def start(self) -> None:
        """Start it; any number of times."""
        try:
            # By another thread: a signal handler that interrupts `Thread.start` would wait for what it interrupts.
            _thread.start_new_thread(self._start, ())
        except RuntimeError as error:
            if self.prevent():
                self._on_cannot_start(_why_not(error))

    def _start(self) -> None:
        if self.prevent():
            try:
                self._thread.start()
            except RuntimeError as error:
                self._on_cannot_start(_why_not(error))

    def prevent(self) -> bool:
        """Prevent its start; false if it was started or prevented before."""
        try:
            self._unstarted.pop()
        except IndexError:
            return False
        return True

    def finished(self) -> None:
        """Note that it has done its work, or has none; once."""
        self._finished = True
        self._end.release()

    def join(self, timeout: float) -> bool:
        """Wait until it has finished, unless this is an I/O thread; return false if it has not finished in time."""
        if not self._finished:
            if in_io_thread() or not self._end.acquire(timeout=min(max(timeout, 0.0), _thread.TIMEOUT_MAX)):
                return False
            self._end.release()
        if self._thread.is_alive():
            self._thread.join(LAST_STEP)
        return True


def _why_not(error: RuntimeError) -> str:
    return NO_THREAD.format(error) if "exit" in str(error) or "shutdown" in str(error) else NO_ROOM_FOR_IT
