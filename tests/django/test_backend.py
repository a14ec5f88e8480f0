"""Tasks of Django on RabbitMQ: what is enqueued runs, and Django is shown how it went."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.conf import settings
from django.test import override_settings

from amqpworker.contrib.django.tasks_api import InvalidTask, TaskResultDoesNotExist, task_backends, task_enqueued
from tests.django.conftest import Site
from tests.programs import Program
from tests.support import wait_until


def finished(result: Any) -> Any:
    """Return a result once its task has ended."""

    def ended() -> bool:
        result.refresh()
        return bool(result.is_finished)

    wait_until(ended, 20, "the task has ended")
    return result


def test_a_task_runs_and_its_result_has_arguments_times_and_workers(site: Site, worker: Program) -> None:
    result = finished(site.tasks.add.enqueue(2, right=3))
    assert (result.status, result.return_value, result.args, result.kwargs) == (
        "SUCCESSFUL",
        {"sum": 5},
        [2],
        {"right": 3},
    )
    assert result.attempts == 1
    assert result.enqueued_at <= result.started_at <= result.finished_at
    again = site.tasks.add.get_result(result.id)
    assert (again.args, again.return_value, again.errors) == ([2], {"sum": 5}, [])


def test_a_coroutine_function_runs_in_another_queue(site: Site, worker: Program) -> None:
    result = finished(asyncio.run(site.tasks.add_async.aenqueue(2, 3)))
    assert (result.return_value, result.task.queue_name) == (5, "emails")
    assert asyncio.run(site.tasks.add_async.aget_result(result.id)).return_value == 5


def test_a_task_gets_its_context_and_each_failed_attempt_is_an_error(site: Site, worker: Program) -> None:
    result = finished(site.tasks.third_time.enqueue())
    assert (result.return_value, result.attempts) == (3, 3)
    assert [error.exception_class for error in result.errors] == [LookupError, LookupError]
    assert "attempt 2" in result.errors[1].traceback


def test_a_failed_task_has_its_error(site: Site, worker: Program) -> None:
    result = finished(site.tasks.fails.enqueue("no stock"))
    assert result.status == "FAILED"
    assert [error.exception_class for error in result.errors] == [ValueError]
    assert "no stock" in result.errors[0].traceback


def test_a_time_limit_of_the_decorator_holds(site: Site, worker: Program) -> None:
    result = finished(site.tasks.slow.enqueue())
    assert result.status == "FAILED"
    assert "TimeLimitExceeded" in result.errors[0].traceback


def test_a_delayed_task_is_ready_with_its_arguments_until_it_runs(site: Site, worker: Program) -> None:
    due = datetime.now(UTC) + timedelta(seconds=1.5)
    result = site.tasks.add.using(run_after=due).enqueue(4)
    waiting = site.tasks.add.get_result(result.id)
    assert (waiting.status, waiting.args, waiting.task.run_after, waiting.attempts) == ("READY", [4], due, 0)
    assert finished(result).started_at >= due


def test_a_running_task_is_shown_as_running(site: Site, worker: Program) -> None:
    result = site.tasks.sleeps.enqueue(1)

    def running() -> bool:
        result.refresh()
        return bool(result.status == "RUNNING")

    wait_until(running, 20, "the task runs")
    assert result.args == [1]
    assert finished(result).status == "SUCCESSFUL"


def test_signals_are_sent_where_the_task_is_enqueued_and_in_the_worker(site: Site, worker: Program) -> None:
    heard: list[Any] = []

    def hear(task_result: Any, **_: object) -> None:
        heard.append((task_result.id, task_result.status))

    task_enqueued.connect(hear)
    try:
        results = [site.tasks.add.enqueue(1), site.tasks.fails.enqueue("x")]
    finally:
        task_enqueued.disconnect(hear)
    assert heard == [(result.id, "READY") for result in results]
    for result, status, value in zip(results, ("SUCCESSFUL", "FAILED"), ("{'sum': 2}", "None"), strict=True):
        noted = site.models.Signalled.objects.filter(task_id=result.id).order_by("pk")
        wait_until(lambda noted=noted: noted.all().count() == 2, 20, "both signals are noted")
        assert list(noted.all().values_list("signal", "status", "value")) == [
            ("started", "RUNNING", ""),
            ("finished", status, value),
        ]


def test_a_result_of_another_backend_is_read_again_there(site: Site) -> None:
    options = {**settings.TASKS["default"]["OPTIONS"], "namespace": "second"}
    second = {"BACKEND": "amqpworker.contrib.django.AmqpWorkerBackend", "QUEUES": ["second"], "OPTIONS": options}
    with override_settings(TASKS={**settings.TASKS, "second": second}):
        moved = site.tasks.add.using(backend="second", queue_name="second")
        read = moved.get_result(moved.enqueue(1).id)
        read.refresh()
        assert (read.backend, read.task.backend, read.status) == ("second", "second", "READY")
        task_backends["second"].app.close()


def test_a_task_whose_name_is_not_that_of_its_function_has_a_result(site: Site) -> None:
    renamed = site.tasks.task(site.tasks.note_nothing)
    assert renamed.get_result(renamed.enqueue().id).task == renamed


def test_an_unknown_id_has_no_result(site: Site) -> None:
    with pytest.raises(TaskResultDoesNotExist, match="Task nothing was not found"):
        task_backends["default"].get_result("nothing")


def test_priorities_and_unknown_queues_are_refused_with_what_to_write_instead(site: Site) -> None:
    with pytest.raises(InvalidTask, match=r"shop\.tasks\.add has priority 5: .* queue of their own"):
        site.tasks.add.using(priority=5)
    with pytest.raises(InvalidTask, match=r"names the queue 'mail', .* it has default, emails"):
        site.tasks.add.using(queue_name="mail")


def test_arguments_that_are_not_json_are_refused(site: Site) -> None:
    with pytest.raises(TypeError, match="Unsupported type"):
        site.tasks.add.enqueue(object())
