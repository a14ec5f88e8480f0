"""Schedules of tasks: the function that adds one takes the task's parameters, and a decorator keeps the task."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import assert_type

from shop import app, charge, deliver, fetch, render, welcome

from amqpworker import current
from amqpworker.schedules.definition import Schedule
from amqpworker.task import AsyncTask, Task


def adds() -> None:
    assert_type(welcome.schedule("daily", cron="0 9 * * *", tz="Europe/Paris")(5), Schedule)
    assert_type(charge.schedule("often", every=300, jitter=5)("o-1", cents=990), Schedule)
    assert_type(fetch.schedule("async", every=timedelta(minutes=5), grace=timedelta(hours=1))(url="x"), Schedule)
    assert_type(deliver.schedule("remote", every=60, overlap="skip", misfire="all")("a@b.example", "hello"), Schedule)
    assert_type(welcome.options(headers={"tenant": "acme"}, expires=50).schedule("view", every=60)(5), Schedule)
    assert_type(welcome.options(queue="other").schedule("both", every=60)(5), Schedule)
    assert_type(app.schedules["daily"], Schedule)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    render.schedule("window", every=60, start=start, end=start + timedelta(days=1))(1, "a", "b")


def wrong_arguments() -> None:
    welcome.schedule("daily", every=60)("5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    welcome.schedule("daily", every=60)()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    charge.schedule("often", every=60)("o-1", cent=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    render.schedule("page", every=60)(page=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def wrong_options() -> None:
    welcome.schedule(every=60)(5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    welcome.schedule("daily", "0 9 * * *")(5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    welcome.schedule("daily", every="5 min")(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    welcome.schedule("daily", every=60, overlap="queue")(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    welcome.schedule("daily", every=60, misfire="last")(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    welcome.schedule("daily", every=60, start="2026-01-01")(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    welcome.options(timeout=5).schedule("daily", every=60)(5)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]


@app.schedule("nightly", cron="30 2 * * *", tz="Europe/Paris")
@app.schedule("often", every=300)
@app.task(queue="slow")
def clean(days: int = 5) -> int:
    run = current()
    assert_type(run.schedule, str | None)
    assert_type(run.nominal, datetime | None)
    return days


@app.schedule("hourly", every=3600)
@app.task
async def refresh() -> None: ...


@app.schedule("plain", every=60)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType, reportUntypedFunctionDecorator]
def plain() -> None: ...


def decorated() -> None:
    assert_type(clean(3), int)
    assert_type(clean.call(days=3), int)
    sync: Task[[int], int] = clean
    coroutine: AsyncTask[[], None] = refresh


async def awaited() -> None:
    assert_type(await refresh(), None)
    assert_type(await refresh.acall(), None)
