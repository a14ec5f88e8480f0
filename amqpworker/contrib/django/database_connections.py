"""
The middleware that has each run of a task begin and end as a request does: with connections to databases that work.

Decides where they are closed: in the thread that runs the task, or, for an `async def` task, in the thread of Django's ORM. If
tasks run inline, in tests, the connections are the caller's, and stay.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from typing import Any

from asgiref.sync import sync_to_async
from django.db import close_old_connections

from amqpworker.task import TaskApp
from amqpworker.worker.context import Run


def database_connections(run: Run) -> AbstractContextManager[Any] | AbstractAsyncContextManager[Any]:
    """Return what closes connections before and after a run that have failed, or are older than CONN_MAX_AGE."""
    is_async = inspect.iscoroutinefunction(run.registered.function)
    return _closing_async(run.registered.app) if is_async else closing_old(run.registered.app)


@contextmanager
def closing_old(app: TaskApp) -> Iterator[None]:
    """Close such connections of this thread, before and after a block in which an app runs code of tasks."""
    close = (lambda: None) if app.is_inline else close_old_connections
    close()
    try:
        yield
    finally:
        close()


@asynccontextmanager
async def _closing_async(app: TaskApp) -> AsyncIterator[None]:
    if app.is_inline:
        yield
        return
    close = sync_to_async(close_old_connections, thread_sensitive=True)
    await close()
    try:
        yield
    finally:
        await close()
