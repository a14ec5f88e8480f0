"""
What the result store keeps of a task of Django besides the row of its message: arguments, queue, and the errors of its attempts.

This record is a row of its own. It is written when the task is enqueued and when an attempt has ended without a result, so a task
that succeeds at once has one write. Decides how long it is kept: about as long as the row of the message, which has the state, the
present attempt and the result. What Django is shown of both is decided by `shown_result`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from amqpworker.app import App
from amqpworker.client.stored_results import moment
from amqpworker.model.message import Message
from amqpworker.model.reply import MAX_TRACEBACK
from amqpworker.results.row import RECORD, ResultRow, record_id

LEAST_TTL = 60.0

KEPT = 1.1
"""A record is kept this many times the `result_ttl`: as long as the row of the message, if its task does not run for long."""

MOST_TRACEBACKS = 50
"""Tracebacks that are kept, those of the last attempts: a task that is retried for days would have a record of megabytes."""

RENEWED_AFTER = 0.05
"""The part of `result_ttl` after which a run that begins stores the record again: its message has waited for long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """
    One enqueued task: times are texts of ISO 8601, `errors` are pairs of a class's path and a traceback.

    `worker_ids` has the worker of each attempt that has ended without a result. `ended_run` is when the last of them had started,
    and `failed_run` when the one of the last error had, in seconds since the epoch as in the row of the message.
    """

    task: str
    args: list[Any]
    kwargs: dict[str, Any]
    queue: str
    enqueued_at: str | None = None
    run_after: str | None = None
    started_at: str | None = None
    worker_ids: list[str] = field(default_factory=list)
    errors: list[list[str]] = field(default_factory=list)
    ended_run: float | None = None
    failed_run: float | None = None

    def ended(self, attempt: int, worker: str, started: float, error: tuple[str, str] | None) -> RequestRecord:
        """Return the record once an attempt, counted from 1, has ended with an error, or was postponed without one."""
        return replace(
            self,
            started_at=self.started_at or moment(started * 1000).isoformat(),
            worker_ids=self.workers(attempt, worker),
            # Of a message that was replayed, the attempts count anew.
            errors=_shortened([*self.errors[: attempt - 1], *([list(error)] if error else [])]),
            ended_run=started,
            failed_run=started if error else self.failed_run,
        )

    def workers(self, attempt: int, worker: str) -> list[str]:
        """Return the worker of each attempt up to this one; an attempt that could not be recorded has that of the next."""
        before = self.worker_ids[: attempt - 1]
        return [*before, *[worker] * (attempt - len(before))]


class Stored(NamedTuple):
    """What the store has of a task: its record, the row of its message, and whether the record is to be stored again."""

    record: RequestRecord | None = None
    row: ResultRow | None = None
    is_old: bool = False


def now_text() -> str:
    """Return the present time as records have it."""
    return datetime.now(UTC).isoformat()


def put_record(app: App, task_id: str, record: RequestRecord) -> None:
    """Store a record, if the app stores results; raises ResultStoreError if that is not possible."""
    store = app.store()
    if store is None:
        return
    now = datetime.now(UTC).timestamp()
    due = now if record.run_after is None else datetime.fromisoformat(record.run_after).timestamp()
    expires = max(now, due) + KEPT * _ttl(app)
    row = ResultRow(record_id(task_id), RECORD, record.task, json.dumps(asdict(record)).encode(), "", now, expires)
    for error in store.put((row,)).values():
        raise error


def get_stored(app: App, task_id: str) -> Stored:
    """Return what the store has of a task; raises ResultStoreError if it cannot be read."""
    store = app.store()
    if store is None:
        return Stored()
    now = datetime.now(UTC).timestamp()
    rows = {key: row for key, row in store.get((task_id, record_id(task_id))).items() if row.expires_at > now}
    row, found = rows.get(task_id), rows.get(record_id(task_id))
    if found is None:
        return Stored(row=row)
    left = found.expires_at - now
    if row is None and left < (KEPT - 1) * _ttl(app):
        return Stored()  # the row of the message has expired
    is_old = left < (KEPT - RENEWED_AFTER) * _ttl(app)
    return Stored(_decoded(found.reply), row, is_old)


def record_of(message: Message[Any], run_after: datetime | None) -> RequestRecord:
    """Return the record of a message that is about to be sent."""
    body = json.loads(message.body)
    after = None if run_after is None else run_after.isoformat()
    return RequestRecord(task=message.task, **body, queue=message.queue, enqueued_at=now_text(), run_after=after)


def _decoded(data: bytes) -> RequestRecord:
    # A later version may have stored more.
    known = {one.name for one in fields(RequestRecord)}
    return RequestRecord(**{name: value for name, value in json.loads(data).items() if name in known})


def _shortened(errors: list[list[str]]) -> list[list[str]]:
    first = max(len(errors) - MOST_TRACEBACKS, 0)
    # The end of a traceback shows where the error was raised.
    return [[kind, text[-MAX_TRACEBACK:] if number >= first else ""] for number, (kind, text) in enumerate(errors)]


def _ttl(app: App) -> float:
    return max(app.settings.result_ttl, LEAST_TTL)
