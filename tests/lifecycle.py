"""
The tasks with which `integration/test_lifecycle.py` has messages take each transition.

An isolated process imports this module, too.
"""

from __future__ import annotations

import os
import threading

from amqpworker import App, Reject, RetryLater, Settings, current

QUEUE = "work"
release = threading.Event()
"""What tasks of the test's own process wait for."""
started: list[str] = []
"""The ids of runs that have begun."""


def made(url: str | None = None) -> App:
    """Return an app with these tasks."""
    settings = Settings(log_tasks="all", max_crashes=2, drain_timeout=20, send_timeout=5)
    app = App(url, default_queue=QUEUE, settings=settings)

    @app.task(name="works", retry=None)
    def works(number: int = 0) -> int:
        return number

    @app.task(name="waits", retry=None)
    def waits() -> None:
        started.append(current().id)
        release.wait(30)

    @app.task(name="retries", retry=[0])
    def retries() -> None:
        if current().attempt == 1:
            raise OSError("away")

    @app.task(name="snoozes", retry=None)
    def snoozes() -> None:
        if current().id not in started:
            started.append(current().id)
            raise RetryLater(0, count=False)

    @app.task(name="fails", retry=None)
    def fails() -> None:
        raise OSError("away")

    @app.task(name="rejects")
    def rejects() -> None:
        raise Reject("never")

    @app.task(name="overruns", retry=None, time_limit=0.05)
    def overruns() -> None:
        while True:
            pass

    @app.task(name="crashes", isolated=True)
    def crashes() -> None:
        os._exit(3)

    return app


app = made()
