"""
The middleware of an app: context managers around each run.

Decides in which order they are entered and left, where an asynchronous one runs, and that none of them can turn a failure
into a success.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack, ExitStack
from types import TracebackType
from typing import Any, TypeAlias, TypeVar

from amqpworker.errors import TimeLimitExceeded
from amqpworker.log.logger import get_logger
from amqpworker.text import name_of
from amqpworker.worker.context import Run

log = get_logger(__name__)

Middleware: TypeAlias = Callable[[Run], AbstractContextManager[Any] | AbstractAsyncContextManager[Any]]
"""Called once per run; what it returns is entered before the function is called, and left after it."""

RunCoroutine: TypeAlias = Callable[[Coroutine[Any, Any, Any], float | None], Any]
"""Runs a coroutine in the event loop of the process, for at most that many seconds, and returns what it returns."""

_T = TypeVar("_T")

LEAVE_GRACE = 5.0
"""Seconds that an asynchronous middleware has to leave a run whose time is up, like the cleanup of a task."""


class MiddlewareStack:
    """
    Calls functions inside the middleware; safe to use from many threads.

    `run_coroutine` runs a coroutine in the process's event loop for at most that many seconds, for asynchronous middleware
    around a function that is not a coroutine function.
    """

    def __init__(self, factories: Sequence[Middleware], run_coroutine: RunCoroutine) -> None:
        self._factories = tuple(factories)
        self._run_coroutine = run_coroutine

    @classmethod
    def of(cls, factories: Sequence[Middleware], run_coroutine: RunCoroutine) -> MiddlewareStack | None:
        """Return the stack of an app, or None if it has no middleware."""
        return cls(factories, run_coroutine) if factories else None

    def call(self, run: Run, function: Callable[[], Any]) -> Any:
        """Return what `function` returns, called inside the middleware; in this thread, in a context of its own."""
        # Else the next run of this thread would see the context variables that a middleware has set and not reset.
        return contextvars.copy_context().run(self._call, run, function)

    def _call(self, run: Run, function: Callable[[], Any]) -> Any:
        with ExitStack() as stack:
            for factory in self._factories:
                manager = _made(factory, run)
                if isinstance(manager, AbstractAsyncContextManager):  # also if it is both kinds
                    manager = _InEventLoop(manager, run, self._run_coroutine)
                manager.__enter__()
                stack.push(_exit_of(manager, factory))
            return function()

    async def call_async(self, run: Run, function: Callable[[], Awaitable[Any]]) -> Any:
        """Return what the coroutine of `function` returns, awaited inside the middleware; in the event loop."""
        async with AsyncExitStack() as stack:
            for factory in self._factories:
                manager = _made(factory, run)
                if isinstance(manager, AbstractAsyncContextManager):
                    await manager.__aenter__()
                    stack.push_async_exit(_async_exit_of(manager, factory))
                else:
                    manager.__enter__()
                    stack.push(_exit_of(manager, factory))
            return await function()


def _made(factory: Middleware, run: Run) -> AbstractContextManager[Any] | AbstractAsyncContextManager[Any]:
    manager = factory(run)
    if not isinstance(manager, AbstractContextManager | AbstractAsyncContextManager):
        raise TypeError(
            f"App(middleware=[…]): {name_of(factory)} must return a context manager, and has returned {manager!r:.60}."
        )
    return manager


_Exit: TypeAlias = Callable[[type[BaseException] | None, BaseException | None, TracebackType | None], _T]


def _exit_of(manager: AbstractContextManager[Any], factory: Middleware) -> _Exit[None]:
    """Return the exit of a context manager, which cannot turn an exception into a success."""

    def leave(kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if manager.__exit__(kind, error, trace) and error is not None:
            _warn_of_suppression(factory, error)

    return leave


def _async_exit_of(manager: AbstractAsyncContextManager[Any], factory: Middleware) -> _Exit[Awaitable[None]]:
    async def leave(kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if await manager.__aexit__(kind, error, trace) and error is not None:
            _warn_of_suppression(factory, error)

    return leave


def _warn_of_suppression(factory: Middleware, error: BaseException) -> None:
    name, kind = name_of(factory), type(error).__name__
    log.warning("middleware_suppressed_failure", middleware=name, error=kind, effect="the failure counts")


class _InEventLoop(AbstractContextManager[Any]):
    """
    An asynchronous context manager that a thread enters and leaves.

    One asyncio task enters and leaves it, as task groups and cancel scopes require. The function in the thread sees the
    context variables that it has set on entering.
    """

    def __init__(self, manager: AbstractAsyncContextManager[Any], run: Run, run_coroutine: RunCoroutine) -> None:
        self._manager = manager
        self._run = run
        self._run_coroutine = run_coroutine
        self._task: asyncio.Task[tuple[bool | None, BaseException | None]] | None = None
        self._exit: asyncio.Future[BaseException | None] | None = None

    def __enter__(self) -> None:
        context = contextvars.copy_context()
        try:
            self._wait_for(self._enter(context), self._run.time_left)
        except BaseException:
            # A time limit may interrupt the thread as it has entered, and then nothing else would leave it.
            if self._task is not None:
                self._task.get_loop().call_soon_threadsafe(self._task.cancel)
            raise
        for variable, value in context.items():
            if variable.get(None) is not value:
                variable.set(value)

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        left = self._run.time_left
        return bool(self._wait_for(self._leave(error), None if left is None else max(left, LEAVE_GRACE)))

    def _wait_for(self, coroutine: Coroutine[Any, Any, Any], timeout: float | None) -> Any:
        try:
            value, error = self._run_coroutine(_caught(coroutine), timeout)
        except TimeoutError as late:
            raise TimeLimitExceeded from late
        if error is not None:
            raise error
        return value

    # ---- in the event loop ------------------------------------------------------------------------------------------

    async def _enter(self, context: contextvars.Context) -> None:
        loop = asyncio.get_running_loop()
        entered: asyncio.Future[None] = loop.create_future()
        self._exit = loop.create_future()
        self._task = loop.create_task(_caught(self._hold(entered, self._exit)), context=context)
        try:
            waiting: list[asyncio.Future[Any]] = [entered, self._task]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._task.cancel()
            raise
        if not entered.done():
            _, error = await self._task
            assert error is not None
            raise error

    async def _hold(self, entered: asyncio.Future[None], exit_: asyncio.Future[BaseException | None]) -> bool | None:
        await self._manager.__aenter__()
        entered.set_result(None)
        try:
            error = await exit_
        except asyncio.CancelledError as cancelled:
            error = cancelled  # the thread was interrupted, or the process ends
        kind, trace = (None, None) if error is None else (type(error), error.__traceback__)
        return await self._manager.__aexit__(kind, error, trace)

    async def _leave(self, error: BaseException | None) -> bool | None:
        assert self._task is not None
        assert self._exit is not None
        if not self._exit.done():
            self._exit.set_result(error)
        suppressed, another = await self._task
        if another is not None:
            raise another
        return suppressed


async def _caught(coroutine: Coroutine[Any, Any, _T]) -> tuple[_T | None, BaseException | None]:
    """Return what a coroutine returns or raises; raised in a task, SystemExit would end the event loop."""
    try:
        return await coroutine, None
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever a middleware raises is the failure of the run
        return None, error
