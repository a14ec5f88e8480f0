"""
The app's lifespan around a worker process: database pools, clients, a model that is loaded once.

Decides when it is entered (before the first delivery) and exited (after the last task), and in which thread. An asynchronous
one runs in the event loop of the `async def` tasks, so that they can use what it creates, and in one asyncio task from
beginning to end, as task groups and cancel scopes require.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TYPE_CHECKING, Any

from amqpworker.errors import ConfigError
from amqpworker.log.logger import get_logger
from amqpworker.worker.middleware import RunCoroutine

if TYPE_CHECKING:
    from amqpworker.app import Context

log = get_logger(__name__)


class Lifespan:
    """
    The lifespan of one worker process; without a `context` it does nothing.

    `run_coroutine` runs a coroutine in the process's event loop, with a timeout in seconds, and returns what it returns. The
    event loop's thread calls `on_ended` if the lifespan has ended by itself.
    """

    def __init__(
        self, context: Context | None, run_coroutine: RunCoroutine, on_ended: Callable[[], None] = lambda: None
    ) -> None:
        self._context = context
        self._run_coroutine = run_coroutine
        self._entered = False
        self._leaving: asyncio.Event | None = None
        self._held: asyncio.Task[None] | None = None
        self._on_ended = on_ended
        if context is not None and not isinstance(context, AbstractContextManager | AbstractAsyncContextManager):
            raise ConfigError(f"App(lifespan=…) must return a context manager, but it returned {context!r:.60}.")

    def enter(self) -> None:
        """Enter it; an exception that it raises fails the process."""
        match self._context:
            case None:
                return
            case AbstractAsyncContextManager():
                self._run_coroutine(self._enter(self._context), None)
            case _:
                self._context.__enter__()
        self._entered = True

    @property
    def has_ended(self) -> bool:
        """Whether it has ended by itself, for example because a background task in it has failed; `leave` logs why."""
        return self._entered and self._held is not None and self._held.done()

    def leave(self, timeout: float | None = None) -> None:
        """
        Exit it, if it was entered; an exception that it raises is logged.

        An asynchronous one may take `timeout` seconds; a synchronous one cannot be interrupted.
        """
        if not self._entered:
            return
        self._entered = False
        try:
            match self._context:
                case AbstractAsyncContextManager():
                    self._run_coroutine(self._leave(), timeout)
                case AbstractContextManager():
                    self._context.__exit__(None, None, None)
        except BaseException as error:
            log.error("lifespan_shutdown_failed", exc_info=error)

    # ---- in the event loop ------------------------------------------------------------------------------------------

    async def _enter(self, context: AbstractAsyncContextManager[Any]) -> None:
        entered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._leaving = asyncio.Event()
        self._held = asyncio.create_task(self._hold(context, entered))
        self._held.add_done_callback(lambda _: self._on_ended())
        # Not to be found by a task that cancels all it can find (https://docs.python.org/3/library/asyncio-extending.html).
        asyncio._unregister_task(self._held)  # noqa: SLF001
        await asyncio.wait([entered, self._held], return_when=asyncio.FIRST_COMPLETED)
        if not entered.done():
            await self._held

    async def _hold(self, context: AbstractAsyncContextManager[Any], entered: asyncio.Future[None]) -> None:
        assert self._leaving is not None
        async with context:
            entered.set_result(None)
            await self._leaving.wait()

    async def _leave(self) -> None:
        assert self._leaving is not None
        assert self._held is not None
        self._leaving.set()
        await self._held
