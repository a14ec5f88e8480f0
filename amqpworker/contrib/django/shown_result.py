"""
What Django is shown of a task: a `TaskResult`, of the record of its request and the row of its message.

Decides the status. An attempt that has ended without a result leaves `running` in the row; the record has that it has ended, so
that Django is shown `READY`, as between two attempts of its own backends.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.utils import timezone

from amqpworker.client.stored_results import moment
from amqpworker.contrib.django.request_record import RequestRecord
from amqpworker.contrib.django.tasks_api import TaskError, TaskResult, TaskResultStatus
from amqpworker.model.reply import RESULT_REFUSED, decode_reply
from amqpworker.results.row import ResultRow

FAILED_OUTSIDE, REFUSED = "amqpworker.errors.TaskFailed", "amqpworker.errors.InvalidResult"
"""The classes of errors that no run has raised."""


def result_of(task: Any, task_id: str, record: RequestRecord, row: ResultRow | None = None) -> Any:
    """Return the result of a task; `row` is that of its message, None if nothing is stored of it."""
    result = TaskResult(
        task=task,
        id=task_id,
        status=TaskResultStatus.READY,
        enqueued_at=time_shown(record.enqueued_at),
        started_at=time_shown(record.started_at),
        last_attempted_at=None,
        finished_at=None,
        args=record.args,
        kwargs=record.kwargs,
        backend=task.backend,
        errors=[TaskError(exception_class_path=path, traceback=text) for path, text in record.errors],
        worker_ids=list(record.worker_ids),
    )
    if row is not None:
        _add_run(result, record, row)
    return result


def running_row(task: str, task_id: str, attempt: int, worker: str, started: float) -> ResultRow:
    """Return the row of a run that begins, as the worker stores it soon."""
    return ResultRow(task_id, "running", task, b"", "", started, started, attempt, worker, started)


def finish(result: Any, succeeded: bool, value: Any, at: datetime) -> None:
    """Make a result one of a task that has ended."""
    status = TaskResultStatus.SUCCESSFUL if succeeded else TaskResultStatus.FAILED
    _set(result, status=status, finished_at=as_django(at), _return_value=value if succeeded else None)


def set_enqueued(result: Any, record: RequestRecord) -> None:
    """Note in a result that its task was enqueued."""
    _set(result, enqueued_at=time_shown(record.enqueued_at))


def time_shown(text: str | None) -> datetime | None:
    """Return a time of a record as Django has times."""
    return None if text is None else as_django(datetime.fromisoformat(text))


def as_django(at: datetime) -> datetime:
    """Return a time as Django has times: in UTC, or, if USE_TZ is false, without a time zone."""
    at = at.astimezone(UTC)
    return at if settings.USE_TZ else timezone.make_naive(at)


def is_between_attempts(record: RequestRecord, row: ResultRow) -> bool:
    """Return whether the latest attempt has ended without a result, so that another one follows."""
    return row.state == "running" and row.started_at == record.ended_run


def _add_run(result: Any, record: RequestRecord, row: ResultRow) -> None:
    is_ended = row.started_at == record.ended_run
    if row.attempt:
        began = as_django(moment(row.started_at * 1000))
        _set(result, started_at=result.started_at or began, last_attempted_at=began)
        if not is_ended:
            _set(result, worker_ids=record.workers(row.attempt, row.worker))
    if row.reply:
        _add_end(result, row, row.started_at == record.failed_run)
    elif row.state == "running" and not is_ended:
        _set(result, status=TaskResultStatus.RUNNING)


def _add_end(result: Any, row: ResultRow, is_recorded: bool) -> None:
    reply = decode_reply(row.reply)
    finish(result, reply.status == "done", json.loads(reply.value or b"null"), moment(row.stored_at * 1000))
    # Its process has crashed, it was cancelled, or its value was refused: no error of the run itself is recorded.
    if reply.status == "failed" and not is_recorded:
        path = REFUSED if reply.reason == RESULT_REFUSED else FAILED_OUTSIDE
        text = "\n".join(filter(None, (reply.traceback.rstrip(), reply.text)))
        result.errors.append(TaskError(exception_class_path=path, traceback=text))


def _set(result: Any, **values: Any) -> None:
    for name, value in values.items():  # Django's class is frozen, and its own backends do the same
        object.__setattr__(result, name, value)
