"""
The tasks with which `operating/test_lifecycle.py` has messages take each transition.

An isolated process imports this module, too.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

from amqpworker import App, Reject, RetryLater, Run, Settings, current

QUEUE = "work"
release = threading.Event()
"""What tasks of the test's own process wait for."""
started: list[str] = []
"""The ids of runs that have begun."""
values: list[tuple[int, ...]] = []
"""What the hook of an isolated task has got."""


def works(number: int = 0) -> int:
    return number


def waits() -> None:
    started.append(current().id)
    release.wait(30)


def loops() -> None:
    started.append(current().id)
    while not release.is_set():
        pass


def retries() -> None:
    if current().attempt == 1:
        raise OSError("away")


def snoozes() -> None:
    if current().id not in started:
        started.append(current().id)
        raise RetryLater(0, count=False)


def repaired() -> None:
    if current().id not in started:
        started.append(current().id)
        raise OSError("away")


def fails() -> None:
    raise OSError("away")


def rejects() -> None:
    raise Reject("never")


def overruns() -> None:
    while True:
        pass


def crashes() -> None:
    os._exit(3)


def adds(a: int, b: int) -> tuple[int, ...]:
    return (a + b,)


def added(_: Run, value: tuple[int, ...]) -> None:
    values.append(value)


TASKS: dict[Callable[..., Any], dict[str, Any]] = {
    works: {},
    waits: {},
    loops: {"retry": 5},
    retries: {"retry": [0]},
    snoozes: {},
    repaired: {},
    fails: {},
    rejects: {},
    overruns: {"time_limit": 0.05},
    crashes: {"isolated": True},
    adds: {"isolated": True},
}


def made(url: str | None = None) -> App:
    """Return an app with these tasks."""
    settings = Settings(log_tasks="all", max_crashes=2, drain_timeout=20, send_timeout=5)
    app = App(url, default_queue=QUEUE, settings=settings)
    for function, options in TASKS.items():
        app.task(name=function.__name__, **{"retry": None, **options})(function)
    app.tasks["adds"].on_success(added)
    return app


app = made()
