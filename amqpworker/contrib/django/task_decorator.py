"""
`task`, the decorator of Django's tasks with what `@task` may state for workers.

Django's own takes the same options from 6.1 on, and with `django-tasks`. That of Django 6.0 takes only Django's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, overload

from amqpworker.contrib.django.tasks_api import (
    DEFAULT_TASK_BACKEND_ALIAS,
    DEFAULT_TASK_PRIORITY,
    DEFAULT_TASK_QUEUE_NAME,
    task_backends,
)
from amqpworker.policies.expected_errors import ThrowsSpec
from amqpworker.policies.retry import DEFAULT, PolicySpec
from amqpworker.policies.time_limit import LimitSpec


@overload
def task(function: Callable[..., Any], /) -> Any: ...


@overload
def task(
    *,
    queue_name: str = DEFAULT_TASK_QUEUE_NAME,
    backend: str = DEFAULT_TASK_BACKEND_ALIAS,
    takes_context: bool = False,
    retry: PolicySpec = DEFAULT,
    time_limit: LimitSpec = None,
    hard_limit: LimitSpec = None,
    isolated: bool = False,
    throws: ThrowsSpec = (),
) -> Callable[[Callable[..., Any]], Any]: ...


def task(  # noqa: PLR0913 - keyword options are the interface here
    function: Callable[..., Any] | None = None,
    /,
    *,
    queue_name: str = DEFAULT_TASK_QUEUE_NAME,
    backend: str = DEFAULT_TASK_BACKEND_ALIAS,
    takes_context: bool = False,
    retry: PolicySpec = DEFAULT,
    time_limit: LimitSpec = None,
    hard_limit: LimitSpec = None,
    isolated: bool = False,
    throws: ThrowsSpec = (),
) -> Any:
    """
    Make a function a task of Django; the backend must be that of amqpworker.

    `retry`, `time_limit`, `hard_limit`, `isolated` and `throws` are as in `@app.task`.

    Raises:
        InvalidTask: the function or an option is not possible for a task.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        return task_backends[backend].task_class(
            func=function,
            priority=DEFAULT_TASK_PRIORITY,
            queue_name=queue_name,
            backend=backend,
            run_after=None,
            takes_context=takes_context,
            retry=retry,
            time_limit=time_limit,
            hard_limit=hard_limit,
            isolated=isolated,
            throws=throws,
        )

    return decorate if function is None else decorate(function)
