"""
What the page of results shows of the rows of a result store: as texts, and times as Django has them.

Decides nothing about requests: `result_pages` does.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from amqpworker.app import App
from amqpworker.client.stored_results import moment
from amqpworker.contrib.django.backend import AmqpWorkerBackend
from amqpworker.contrib.django.request_record import RequestRecord, get_stored
from amqpworker.contrib.django.shown_result import as_django, is_between_attempts, time_shown
from amqpworker.contrib.django.tasks_api import task_backends
from amqpworker.errors import MalformedReply
from amqpworker.model.headers import time_of
from amqpworker.model.progress import decode_progress
from amqpworker.model.reply import decode_reply
from amqpworker.results.row import ResultRow
from amqpworker.results.row_listing import RowListing
from amqpworker.text import cut, encodable

MOST = 100
MAX_SHOWN = 20_000
"""Characters of a value or an argument list: more would make the page slow."""

MAX_IN_LIST = 200
"""Characters of an error in the list."""

STATES = ("sent", "running", "done", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class ListedRow:
    """A row of the list."""

    id: str
    state: str
    task: str
    started: datetime | None
    stored: datetime | None
    attempt: int
    worker: str
    progress: str
    error: str


@dataclass(frozen=True, slots=True)
class Details:
    """What is stored of one message: names and values, then long texts with a heading."""

    fields: list[tuple[str, Any]] = field(default_factory=list)
    texts: list[tuple[str, str]] = field(default_factory=list)


def apps_with_results() -> dict[str, App]:
    """Return the apps of all backends in `TASKS` that store results, by their aliases."""
    backends = {alias: task_backends[alias] for alias in task_backends}
    return {
        alias: backend.app
        for alias, backend in backends.items()
        if isinstance(backend, AmqpWorkerBackend) and backend.supports_get_result
    }


def latest(app: App, state: str) -> Sequence[ListedRow] | None:
    """Return the latest rows, None if the store cannot list them; raises what `ResultStore.get` raises."""
    store = app.store()
    if not isinstance(store, RowListing):
        return None
    now = datetime.now(UTC).timestamp()
    rows = store.latest(MOST, now, app.settings.result_ttl, state)
    # Replies of failures are of a bounded size.
    failed = store.get([row.id for row in rows if row.state == "failed"])
    return [_listed(row, _error(failed[row.id].reply) if row.id in failed else "") for row in rows]


def details(app: App, task_id: str) -> Details | None:
    """Return what is stored of a message, None if nothing is; raises what `ResultStore.get` raises."""
    record, row, _ = get_stored(app, task_id)
    if record is None and row is None:
        return None
    shown = Details()
    _add_row(shown, task_id, record, row)
    if record is not None:
        _add_record(shown, record)
    if row is not None and row.reply:
        _add_reply(shown, row.reply)
    return shown


def _listed(row: ResultRow, error: str) -> ListedRow:
    task_id, state, task, worker = map(encodable, (row.id, row.state, row.task, row.worker))
    started, stored = _time(row.started_at), _time(row.stored_at)
    return ListedRow(task_id, state, task, started, stored, row.attempt, worker, _progress(row), error)


def _error(data: bytes) -> str:
    try:
        reply = decode_reply(data)
    except MalformedReply:
        return ""
    return encodable(cut(": ".join(filter(None, (reply.error_type, reply.text))) or reply.reason, MAX_IN_LIST))


def _add_row(shown: Details, task_id: str, record: RequestRecord | None, row: ResultRow | None) -> None:
    if row is None:
        row = ResultRow(task_id, "sent", record.task if record else "", b"", "", 0.0, 0.0)
    waits = record is not None and is_between_attempts(record, row)
    first_sent = time_of(row.first_sent)
    shown.fields.extend(
        [
            ("Id", encodable(task_id)),
            ("State", "waits for another attempt" if waits else encodable(row.state)),
            ("Task", encodable(row.task)),
            ("Sent", None if first_sent is None else as_django(moment(first_sent))),
            ("Started", _time(row.started_at)),
            ("Stored", _time(row.stored_at)),
            ("Expires", _time(row.expires_at)),
            ("Attempt", row.attempt or None),
            ("Worker", encodable(row.worker)),
            ("Progress", _progress(row)),
        ]
    )


def _add_record(shown: Details, record: RequestRecord) -> None:
    shown.fields.extend(
        [
            ("Queue", record.queue),
            ("Enqueued", time_shown(record.enqueued_at)),
            ("Run after", time_shown(record.run_after)),
        ]
    )
    shown.texts.append(("Arguments", _text(json.dumps({"args": record.args, "kwargs": record.kwargs}, indent=2))))
    for number, (kind, traceback) in enumerate(record.errors, 1):
        shown.texts.append((f"Error {number}: {kind}", _text(traceback)))


def _add_reply(shown: Details, data: bytes) -> None:
    try:
        reply = decode_reply(data)
    except MalformedReply as error:
        shown.texts.append(("Reply", str(error)))
        return
    if reply.status == "done":
        shown.texts.append(("Value", _text((reply.value or b"null").decode())))
    else:
        shown.fields.extend(
            [("Reason", reply.reason), ("Error", ": ".join(filter(None, (reply.error_type, reply.text))))]
        )
        if reply.traceback:
            shown.texts.append(("Traceback", _text(reply.traceback)))


def _progress(row: ResultRow) -> str:
    progress = decode_progress(row.progress) if row.progress else None
    if progress is None:
        return ""
    total = "" if progress.total is None else f" of {progress.total:g}"
    return encodable(f"{progress.done:g}{total} {progress.note}".rstrip())


def _time(seconds: float) -> datetime | None:
    return as_django(moment(seconds * 1000)) if seconds > 0 else None


def _text(text: str) -> str:
    return encodable(cut(text, MAX_SHOWN))
