"""Rows of tests, and shorter ways to put and get one."""

from __future__ import annotations

from amqpworker.results.row import ResultRow
from amqpworker.results.store import ResultStore

LATER = 4_000_000_000.0


def row(task_id: str, reply: bytes = b"1", expires_at: float = LATER, first_sent: str = "") -> ResultRow:
    return ResultRow(task_id, "done", "shop.task", reply, first_sent, 1.5, expires_at)


def put(store: ResultStore, task_id: str, reply: bytes = b"1", expires_at: float = LATER) -> None:
    """Store one row; raise its error."""
    for error in store.put([row(task_id, reply, expires_at)]).values():
        raise error


def get(store: ResultStore, task_id: str) -> bytes | None:
    """Return one reply."""
    found = store.get([task_id]).get(task_id)
    return None if found is None else found.reply
