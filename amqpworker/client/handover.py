"""What other threads hand over to an event loop: one wake-up of the loop for all that has gathered."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress


class Handover:
    """Calls functions in an event loop, in the order in which any threads have put them here."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self._waiting: deque[Callable[[], None]] = deque()
        self._woken = False

    def put(self, function: Callable[[], None]) -> None:
        """Have a function called soon; if the loop is closed, nothing waits for that any more."""
        self._waiting.append(function)
        if self._woken:
            return
        self._woken = True
        loop = self._loop()
        if loop is not None:
            with suppress(RuntimeError):  # it is closed
                loop.call_soon_threadsafe(self._call_all)

    def _call_all(self) -> None:
        # Reset first: what is put here from now on wakes the loop again.
        self._woken = False
        while self._waiting:
            self._waiting.popleft()()

    def is_of(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Return whether it is the handover of this loop."""
        return self._loop() is loop


class _OfThread(threading.local):
    handover: Handover | None = None


_of_thread = _OfThread()


def handover_to_this_loop() -> Handover:
    """Return the handover of the running event loop, one per loop: a loop stays in its thread."""
    loop = asyncio.get_running_loop()
    present = _of_thread.handover
    if present is None or not present.is_of(loop):
        present = _of_thread.handover = Handover(loop)
    return present
