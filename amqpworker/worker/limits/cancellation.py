"""
The time limit of a coroutine: it is cancelled, and again every few seconds until it has ended.

Decides which cancellations are ours. `asyncio.timeout` cancels only once: a coroutine may swallow that and continue forever.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable
from typing import Any

from amqpworker.errors import TimeLimitExceeded


class _Deadline:
    """Cancels an asyncio task at its limit, and every `repeat_after` seconds from then on, until it is stopped."""

    def __init__(self, seconds: float, repeat_after: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._repeat_after = repeat_after
        self._loop = asyncio.get_running_loop()
        self._before = task.cancelling()
        self._ours = 0
        self._timer = self._loop.call_later(seconds, self._cancel)

    def _cancel(self) -> None:
        self._ours += 1
        self._task.cancel()
        self._timer = self._loop.call_later(self._repeat_after, self._cancel)

    def stop(self) -> bool:
        """Cancel no more; return whether only this class has cancelled the task."""
        self._timer.cancel()
        for _ in range(self._ours):
            self._task.uncancel()
        return self._ours > 0 and self._task.cancelling() <= self._before


async def await_within(awaitable: Awaitable[Any], seconds: float, repeat_after: float) -> Any:
    """Return what is awaited; raises TimeLimitExceeded if it is cancelled after `seconds` (`inf`: never), and that ends it."""
    if seconds == math.inf:
        return await awaitable
    deadline = _Deadline(seconds, repeat_after)
    try:
        value = await awaitable
    except asyncio.CancelledError as error:
        if deadline.stop():
            raise TimeLimitExceeded from error
        raise
    except BaseException:
        deadline.stop()
        raise
    deadline.stop()
    return value
