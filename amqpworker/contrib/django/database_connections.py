"""
The middleware that has each run of a task begin and end as a request does: with connections to databases that work.

Decides where they are closed: in the thread that runs the task, or, for an `async def` task, in the thread of Django's ORM.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from typing import Any

from asgiref.sync import sync_to_async
from django.db import close_old_connections

from amqpworker.worker.context import Run


def database_connections(run: Run) -> AbstractContextManager[Any] | AbstractAsyncContextManager[Any]:
    """Return what closes connections before and after a run that have failed, or are older than CONN_MAX_AGE."""
    return _closing_async() if inspect.iscoroutinefunction(run.registered.function) else closing_old()


@contextmanager
def closing_old() -> Iterator[None]:
    """Close such connections of this thread, before and after a block."""
    close_old_connections()
    try:
        yield
    finally:
        close_old_connections()


@asynccontextmanager
async def _closing_async() -> AsyncIterator[None]:
    close = sync_to_async(close_old_connections, thread_sensitive=True)
    await close()
    try:
        yield
    finally:
        await close()
