"""The request that a worker process stops, and what wakes its main thread."""

from __future__ import annotations

from amqpworker.lifecycle import Waker


class StopRequest:
    """
    A request that is made once, and for which one thread waits.

    It is not an `Event`: a signal handler could not set one while the main thread holds its lock.
    """

    def __init__(self) -> None:
        self._waker = Waker()
        self._requested = False

    def wake(self) -> None:
        """Wake the thread that waits, without a request to stop."""
        self._waker.set()

    def set(self) -> None:
        """Ask to stop; from any thread, and from a signal handler."""
        self._requested = True
        self._waker.set()

    def is_set(self) -> bool:
        """Return whether it was requested."""
        return self._requested

    def wait(self, timeout: float) -> bool:
        """Wait for it, at most `timeout` seconds; return whether it was requested. One thread may wait."""
        if not self._requested:
            self._waker.wait(timeout)
        return self._requested
