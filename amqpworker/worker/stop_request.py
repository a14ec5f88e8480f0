"""
The request that a worker process stops, and what wakes its main thread.

Decides nothing: who requests it, and what is done then, is `process`'s.
"""

from __future__ import annotations

from amqpworker.broker.waker import Waker


class StopRequest:
    """
    Made once, and waited for by one thread.

    An `Event` could not be set by a signal handler: the main thread may hold the event's lock that very moment.
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
