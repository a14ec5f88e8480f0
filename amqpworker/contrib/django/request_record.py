"""
What the result store keeps of a task of Django besides its result: arguments, queue, runs and errors, in a row of its own.

The row of the result has none of these. This one is written when the task is enqueued and when a run begins or fails; the row of
the result decides how the task ended. Decides what Django is shown of both.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from amqpworker.app import App
from amqpworker.client.stored_results import moment
from amqpworker.contrib.django.tasks_api import TaskError, TaskResult, TaskResultStatus
from amqpworker.model.message import Message
from amqpworker.model.reply import decode_reply
from amqpworker.results.row import ResultRow

SUFFIX = ".django"
STATE = "django"
LEAST_TTL = 60.0
UNKNOWN_ERROR = "amqpworker.errors.TaskFailed"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """One enqueued task: times are texts of ISO 8601, `errors` are pairs of a class's path and a traceback."""

    task: str
    args: list[Any]
    kwargs: dict[str, Any]
    queue: str
    status: str = "READY"
    enqueued_at: str | None = None
    run_after: str | None = None
    started_at: str | None = None
    last_attempted_at: str | None = None
    worker_ids: list[str] = field(default_factory=list)
    errors: list[list[str]] = field(default_factory=list)

    def begun(self, worker: str, attempt: int) -> RequestRecord:
        """Return the record of a run that begins; a record that was lost has the same worker for all earlier attempts."""
        now = now_text()
        ids = [*self.worker_ids, worker]
        ids = [worker] * (attempt - len(ids)) + ids
        return replace(self, status="RUNNING", started_at=self.started_at or now, last_attempted_at=now, worker_ids=ids)

    def postponed(self) -> RequestRecord:
        """Return the record of a run that is repeated later, without an error."""
        return replace(self, status="READY")

    def failed(self, error_class: str, traceback: str) -> RequestRecord:
        """Return the record of a run that has failed, and may be repeated."""
        return replace(self, status="READY", errors=[*self.errors, [error_class, traceback]])


def now_text() -> str:
    """Return the present time as records have it."""
    return datetime.now(UTC).isoformat()


def put_record(app: App, task_id: str, record: RequestRecord) -> None:
    """Store a record, if the app stores results; raises ResultStoreError if that is not possible."""
    store = app.store()
    if store is None:
        return
    now = datetime.now(UTC).timestamp()
    due = 0.0 if record.run_after is None else datetime.fromisoformat(record.run_after).timestamp() - now
    ttl = max(app.settings.result_ttl, LEAST_TTL) + max(due, 0.0)
    row = ResultRow(task_id + SUFFIX, STATE, record.task, json.dumps(asdict(record)).encode(), "", now, now + ttl)
    for error in store.put((row,)).values():
        raise error


def get_record(app: App, task_id: str) -> tuple[RequestRecord | None, ResultRow | None]:
    """Return the record of a task and the row of its result, each None if there is none; raises ResultStoreError."""
    store = app.store()
    if store is None:
        return None, None
    now = datetime.now(UTC).timestamp()
    rows = {key: row for key, row in store.get((task_id, task_id + SUFFIX)).items() if row.expires_at > now}
    stored = rows.get(task_id + SUFFIX)
    return (None if stored is None else RequestRecord(**json.loads(stored.reply))), rows.get(task_id)


def record_of(message: Message[Any], run_after: datetime | None) -> RequestRecord:
    """Return the record of a message that is about to be sent."""
    body = json.loads(message.body)
    after = None if run_after is None else run_after.isoformat()
    return RequestRecord(task=message.task, **body, queue=message.queue, enqueued_at=now_text(), run_after=after)


def result_of(task: Any, task_id: str, record: RequestRecord, row: ResultRow | None = None) -> Any:
    """Return what Django is shown: a `TaskResult`. The row of the result, if it has one, decides how the task ended."""
    result = TaskResult(
        task=task,
        id=task_id,
        status=TaskResultStatus(record.status),
        enqueued_at=_time(record.enqueued_at),
        started_at=_time(record.started_at),
        last_attempted_at=_time(record.last_attempted_at),
        finished_at=None,
        args=record.args,
        kwargs=record.kwargs,
        backend=task.backend,
        errors=[TaskError(exception_class_path=path, traceback=text) for path, text in record.errors],
        worker_ids=list(record.worker_ids),
    )
    if row is not None and row.reply:
        _finish(result, row, record.status == "RUNNING" or not record.errors)
    return result


def _finish(result: Any, row: ResultRow, ended_from_outside: bool) -> None:
    reply = decode_reply(row.reply)
    finish(result, reply.status == "done", json.loads(reply.value or b"null"), moment(row.stored_at * 1000))
    # Its process has crashed, or it was cancelled: the run itself has recorded no error.
    if reply.status == "failed" and ended_from_outside:
        result.errors.append(TaskError(exception_class_path=UNKNOWN_ERROR, traceback=reply.traceback or reply.text))


def finish(result: Any, succeeded: bool, value: Any, at: datetime) -> None:
    """Make a result one of a task that has ended; Django's class is frozen, and its own backends do the same."""
    status = TaskResultStatus.SUCCESSFUL if succeeded else TaskResultStatus.FAILED
    for name, content in (("status", status), ("finished_at", at), ("_return_value", value if succeeded else None)):
        object.__setattr__(result, name, content)


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
