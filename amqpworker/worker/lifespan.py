"""
What an app wants to have around its worker process: database pools, clients, a warm model.

Decides when it begins (before the first delivery) and ends (after the last task), and in which thread: an asynchronous
one in the event loop of the `async def` tasks, so that they can use what it makes.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, TypeAlias

from amqpworker.errors import ConfigError
from amqpworker.logs import get_logger

__all__ = ["Lifespan"]

log = get_logger(__name__)

Context: TypeAlias = AbstractContextManager[Any] | AbstractAsyncContextManager[Any]
Awaits: TypeAlias = Callable[[Coroutine[Any, Any, Any]], Any]


class Lifespan:
    """
    The context around one worker process; nothing without a `context`.

    `awaits` runs a coroutine in the process's event loop and returns what it returns.
    """

    def __init__(self, context: Context | None, awaits: Awaits) -> None:
        self._context = context
        self._awaits = awaits
        self._entered = False
        if context is not None and not isinstance(context, AbstractContextManager | AbstractAsyncContextManager):
            raise ConfigError(f"App(lifespan=…) must return a context manager, and has returned {context!r:.60}.")

    def begin(self) -> None:
        """Enter it; what it raises is the process's failure."""
        match self._context:
            case None:
                return
            case AbstractAsyncContextManager():
                self._awaits(self._context.__aenter__())
            case _:
                self._context.__enter__()
        self._entered = True

    def end(self) -> None:
        """Leave it, where it was entered; what it raises is logged."""
        if not self._entered:
            return
        self._entered = False
        try:
            match self._context:
                case AbstractAsyncContextManager():
                    self._awaits(self._context.__aexit__(None, None, None))
                case AbstractContextManager():
                    self._context.__exit__(None, None, None)
        except BaseException as error:
            log.error("lifespan_not_ended", exc_info=error)
