"""The tasks of the project."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from django.db import connection
from django.dispatch import receiver

from amqpworker import RetryLater, current
from amqpworker.contrib.django.tasks_api import PACKAGE, task_finished, task_started
from shop.models import Order, Signalled

if PACKAGE == "django.tasks":
    from django.tasks import task
else:
    from django_tasks import task


@task(retry=[0.2] * 50)
def complete(number: int) -> None:
    """Set an order done."""
    Order.objects.filter(pk=number).update(is_done=True)


@task
def add(left: int, right: int = 1) -> dict[str, int]:
    return {"sum": left + right}


@task(queue_name="emails")
async def add_async(left: int, right: int) -> int:
    await Order.objects.acount()
    return left + right


@task(takes_context=True, retry=[0.1, 0.1])
def third_time(context: Any) -> int:
    """Fail twice, then return which attempt it is."""
    if context.attempt < 3:
        raise LookupError(f"attempt {context.attempt}")
    return int(context.attempt)


@task(retry=None)
def fails(text: str) -> None:
    raise ValueError(text)


@task(time_limit=0.3, retry=None)
def slow() -> None:
    for _ in range(600):
        time.sleep(0.05)  # the limit is raised between two of them


@task(hard_limit=0.5, retry=None)
def hangs() -> None:
    time.sleep(60)


@task(throws=(KeyError,), retry=[0.1] * 3)
def expected() -> None:
    raise KeyError("sold out")


@task(takes_context=True, retry=[2.0])
async def waits_between(context: Any) -> str:
    """Fail at first; two seconds pass before the next attempt."""
    if context.attempt == 1:
        raise LookupError("not yet")
    return f"{context.attempt} of {context.task_result.id}"


@task(takes_context=True, time_limit=0.2, retry=[2.0])
async def slow_at_first(context: Any) -> int:
    if context.attempt == 1:
        await asyncio.sleep(60)
    return int(context.attempt)


@task(takes_context=True)
def later(context: Any, count: bool) -> int:
    """Ask for a later run once."""
    seen, _ = Signalled.objects.get_or_create(signal="later", task_id=context.task_result.id)
    if not seen.status:
        seen.status = "postponed"
        seen.save()
        raise RetryLater(2.0, count=count)
    return int(context.attempt)


@task(isolated=True, retry=[0.1])
def crashes(times: int) -> str:
    """End the process in the first runs."""
    run = Signalled.objects.create(signal="crash", task_id=current().id)
    if Signalled.objects.filter(signal="crash", task_id=run.task_id).count() <= times:
        os._exit(7)
    return "survived"


@task(retry=None)
def exits_once() -> int:
    """End the worker process in the first run."""
    runs = Signalled.objects.filter(signal="exit", task_id=current().id)
    Signalled.objects.create(signal="exit", task_id=current().id)
    if runs.count() == 1:
        os._exit(7)
    return runs.count()


@task(retry=None)
def returns_a_set() -> set[int]:
    return {1}


@task
def sleeps(seconds: float) -> None:
    time.sleep(seconds)


@task(retry=None)
def backend_process() -> int:
    """Return the process of the database that this thread is connected to: without a retry, so that no cut may show."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return int(cursor.fetchone()[0])


@receiver([task_started, task_finished])
def note(sender: type, task_result: Any, signal: Any, **_: object) -> None:
    if task_result.task.func.__name__ in {"add", "fails"}:
        name = "started" if signal is task_started else "finished"
        value = str(task_result._return_value) if name == "finished" else ""
        Signalled.objects.create(signal=name, task_id=task_result.id, status=task_result.status, value=value)


def note_nothing() -> None:
    """Do nothing."""
