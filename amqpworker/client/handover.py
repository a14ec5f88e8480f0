"""What an event loop and other threads hand over to each other: one wake-up for all that has gathered."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from amqpworker.broker.keeper import ConnectionKeeper
from amqpworker.client.deadlines import Deadlines


class Handover:
    """Calls functions in an event loop, in the order in which any threads have put them here; wakes a thread for the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self._waiting: deque[Callable[[], None]] = deque()
        self._woken = False
        self._to_wake: ConnectionKeeper[Any] | None = None
        self.deadlines = Deadlines()
        """The deadlines of what coroutines of this loop wait for."""
        self._tasks: set[asyncio.Task[None]] = set()

    def wake(self, keeper: ConnectionKeeper[Any]) -> None:
        """Wake the thread of a connection once for all messages of this turn of the loop; from a coroutine of the loop."""
        if self._to_wake is None:
            self._to_wake = keeper
            asyncio.get_running_loop().call_soon(self._wake)
        elif self._to_wake is not keeper:
            keeper.wake()

    def _wake(self) -> None:
        keeper, self._to_wake = self._to_wake, None
        if keeper is not None:
            keeper.wake()

    def put(self, function: Callable[[], None]) -> None:
        """Call a function in the loop soon; does nothing if the loop is closed."""
        self._waiting.append(function)
        if self._woken:
            return
        self._woken = True
        loop = self._loop()
        if loop is not None:
            with suppress(RuntimeError):  # it is closed
                loop.call_soon_threadsafe(self._call_all)

    def keep(self, task: asyncio.Task[None]) -> None:
        """Keep a task of the loop until it is done: asyncio does not, and complains about one that is deleted before."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

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
    """Return the handover of the running event loop: the same one until another loop runs in this thread."""
    loop = asyncio.get_running_loop()
    present = _of_thread.handover
    if present is None or not present.is_of(loop):
        present = _of_thread.handover = Handover(loop)
    return present
