"""When waits that a coroutine has begun end at the latest: one timer of their event loop for all of them."""

from __future__ import annotations

import asyncio
import time

CHECK_EVERY = 1.0


class Deadlines:
    """Ends waits that are late, up to `CHECK_EVERY` seconds after their deadline; for one event loop."""

    def __init__(self) -> None:
        self._deadlines: dict[asyncio.Future[bool], float] = {}
        self._is_checking = False

    async def wait(self, future: asyncio.Future[bool], deadline: float) -> bool:
        """Wait for a future that is set to true, and return that; false if it is not set by `deadline` (monotonic)."""
        self._deadlines[future] = deadline
        if not self._is_checking:
            self._check_later(future.get_loop())
        try:
            return await future
        finally:
            del self._deadlines[future]

    def _check_later(self, loop: asyncio.AbstractEventLoop) -> None:
        self._is_checking = True
        loop.call_later(CHECK_EVERY, self._check, loop)

    def _check(self, loop: asyncio.AbstractEventLoop) -> None:
        self._is_checking = False
        now = time.monotonic()
        for future, deadline in list(self._deadlines.items()):
            if deadline <= now and not future.done():
                future.set_result(False)
        if self._deadlines:
            self._check_later(loop)
