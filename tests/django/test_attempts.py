"""What Django is shown of attempts that fail, wait, crash or are stopped, and where the result store is away."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.conf import settings
from django.core.management import call_command
from django.test import override_settings
from django.utils import timezone

from amqpworker.contrib.django.backend import app_of_backend
from amqpworker.contrib.django.request_record import RequestRecord, put_record
from amqpworker.contrib.django.tasks_api import InvalidTask, TaskResultDoesNotExist
from amqpworker.errors import ResultStoreError
from tests.cli import run_here
from tests.django.conftest import Site
from tests.django.test_backend import finished
from tests.programs import Program
from tests.support import wait_until


def classes(result: Any) -> list[str]:
    return [error.exception_class.__name__ for error in result.errors]


def until(result: Any, status: str, attempts: int) -> None:
    def reached() -> bool:
        result.refresh()
        return bool((result.status, result.attempts) == (status, attempts))

    wait_until(reached, 20, f"it is {status} after {attempts} attempts")


def test_between_two_attempts_a_task_is_ready_with_the_error_of_the_first(site: Site, worker: Program) -> None:
    result = site.tasks.waits_between.enqueue()
    assert (result.status, result.attempts) == ("READY", 0)
    until(result, "READY", 1)
    assert classes(result) == ["LookupError"]
    first = result.last_attempted_at
    assert result.started_at == first
    assert finished(result).return_value == f"2 of {result.id}"
    assert (result.attempts, classes(result), result.started_at) == (2, ["LookupError"], first)
    assert result.last_attempted_at > first


def test_a_coroutine_that_has_run_for_too_long_is_ready_for_its_next_attempt(site: Site, worker: Program) -> None:
    result = site.tasks.slow_at_first.enqueue()
    until(result, "READY", 1)
    assert classes(result) == ["TimeLimitExceeded"]
    assert "asyncio.sleep(60)" in result.errors[0].traceback
    assert finished(result).return_value == 2
    assert (result.attempts, len(result.errors)) == (2, 1)


@pytest.mark.parametrize(("count", "attempts"), [(True, 2), (False, 1)])
def test_a_task_that_asks_to_run_later_is_ready_until_then_without_an_error(
    site: Site, worker: Program, count: bool, attempts: int
) -> None:
    result = site.tasks.later.enqueue(count)
    until(result, "READY", 1)
    assert result.started_at is not None
    assert finished(result).return_value == attempts
    assert (result.attempts, result.errors) == (attempts, [])


def test_a_run_whose_process_ends_is_repeated(site: Site, worker: Program) -> None:
    survived, crashed = site.tasks.crashes.enqueue(1), site.tasks.crashes.enqueue(99)
    assert finished(survived).return_value == "survived"
    assert finished(crashed).status == "FAILED"
    assert classes(crashed) == ["TaskFailed"]
    assert "isolated process that ran it ended by" in crashed.errors[0].traceback
    # A crash is not counted as an attempt (docs/failure.md).
    assert (site.models.Signalled.objects.filter(task_id=crashed.id).count(), crashed.attempts) == (3, 1)


def test_a_run_that_ends_its_worker_process_is_repeated(site: Site, worker: Program) -> None:
    result = finished(site.tasks.exits_once.enqueue())
    assert result.return_value == 2
    assert (result.attempts, result.errors) == (1, [])


def test_a_hard_limit_ends_a_task(site: Site, worker: Program) -> None:
    result = finished(site.tasks.hangs.enqueue())
    assert (result.status, result.attempts, classes(result)) == ("FAILED", 1, ["TaskFailed"])
    assert "0.5 s" in result.errors[0].traceback


def test_a_task_that_is_cancelled_has_failed_without_an_attempt(site: Site, worker: Program) -> None:
    result = site.tasks.add.using(run_after=timezone.now() + timedelta(minutes=5)).enqueue(1)
    app_of_backend("default").pending.cancel(result.id)
    assert finished(result).status == "FAILED"
    assert (result.attempts, result.started_at, classes(result)) == (0, None, ["TaskFailed"])
    assert "cancelled" in result.errors[0].traceback


def test_an_expected_error_is_not_retried(site: Site, worker: Program) -> None:
    result = finished(site.tasks.expected.enqueue())
    assert (result.status, result.attempts, classes(result)) == ("FAILED", 1, ["KeyError"])


def test_a_value_that_is_not_json_is_a_failure_of_its_task(site: Site, worker: Program) -> None:
    result = finished(site.tasks.returns_a_set.enqueue())
    assert (result.status, result.attempts, classes(result)) == ("FAILED", 1, ["InvalidResult"])
    assert "set" in result.errors[0].traceback


def test_a_task_is_enqueued_and_runs_although_the_store_of_the_sender_is_away(
    site: Site, worker: Program, caplog: pytest.LogCaptureFixture
) -> None:
    default = settings.TASKS["default"]
    away = {**default, "OPTIONS": {**default["OPTIONS"], "results": "postgresql://127.0.0.1:1/gone"}}
    with override_settings(TASKS={**settings.TASKS, "away": away}):
        result = site.tasks.add.using(backend="away").enqueue(1)
        with pytest.raises(ResultStoreError, match="gone"):
            result.refresh()
        app_of_backend("away").close()
    assert result.enqueued_at is not None
    assert [one for one in caplog.records if "record_failed" in one.getMessage() and result.id in one.getMessage()]

    def ended() -> Any:
        try:
            found = site.tasks.add.get_result(result.id)
        except TaskResultDoesNotExist:
            return None
        return found if found.is_finished else None

    found = wait_until(ended, 20, "the task has run")
    assert (found.args, found.return_value, found.attempts, found.enqueued_at) == ([1], {"sum": 2}, 1, None)


def test_without_time_zones_times_are_naive(site: Site, worker: Program) -> None:
    with override_settings(USE_TZ=False):
        due = datetime.now() + timedelta(seconds=1)  # noqa: DTZ005
        result = site.tasks.add.using(run_after=due).enqueue(1)
        assert timezone.is_naive(result.enqueued_at)
        assert site.tasks.add.get_result(result.id).task.run_after == due
        finished(result)
        assert due <= result.started_at <= result.finished_at


@pytest.mark.parametrize("priority", [1000, -1000, 1.5, "high", None])
def test_each_priority_but_that_of_the_default_is_refused(site: Site, priority: Any) -> None:
    from shop.tasks import task

    with pytest.raises(InvalidTask, match=r"note_nothing has priority .* queue of their own"):
        task(priority=priority)(site.tasks.note_nothing)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"retry": "often"}, "retry"),
        ({"time_limit": -1}, "time_limit"),
        ({"throws": ("KeyError",)}, "throws"),
        ({"queue_name": "nowhere"}, "it has default, emails"),
    ],
)
def test_a_wrong_option_of_a_task_is_named(site: Site, options: dict[str, Any], text: str) -> None:
    from shop.tasks import task

    with pytest.raises(InvalidTask, match=rf"Task shop\.tasks\.note_nothing.*{text}"):
        task(**options)(site.tasks.note_nothing)


def test_a_result_of_what_the_project_has_no_longer_is_shown_as_far_as_possible(site: Site) -> None:
    app = app_of_backend("default")
    put_record(app, "moved", RequestRecord(task="shop.tasks.add", args=[1], kwargs={}, queue="gone"))
    found = site.tasks.add.get_result("moved")
    assert (found.status, found.args, found.task.queue_name) == ("READY", [1], "default")
    put_record(app, "removed", RequestRecord(task="shop.tasks.gone", args=[1], kwargs={}, queue="default"))
    with pytest.raises(TaskResultDoesNotExist, match=r"of shop\.tasks\.gone, which does not exist"):
        site.tasks.add.get_result("removed")


def test_the_program_shows_and_deletes_what_is_stored_of_a_task(
    site: Site, worker: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    result = finished(site.tasks.third_time.enqueue())
    app = ("--app", "amqpworker.contrib.django.project:default")
    shown = run_here(capsys, "results", "show", result.id, *app)
    assert "state:       done\ntask:        shop.tasks.third_time\nattempt:     3\n" in shown.out
    assert run_here(capsys, "results", "delete", result.id, *app).out == f"{result.id}: deleted\n"
    store = app_of_backend("default").store()
    assert store is not None
    assert store.get([result.id, f"aw-record:{result.id}"]) == {}
    with pytest.raises(TaskResultDoesNotExist):
        result.refresh()


def test_the_page_of_results_needs_no_table_and_no_migration(site: Site) -> None:
    call_command("makemigrations", "--check", "--dry-run", verbosity=0)
    call_command("check", "--fail-level", "WARNING")
