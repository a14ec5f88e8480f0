"""What each store that can list its rows must do."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from amqpworker.model.cancel import stored_id
from amqpworker.results.row import record_id
from tests.unit.results.rows import LATER, row

NOW = LATER - 100.0
DAY = 50.0


def check_listing(store: Any, other: Any) -> None:
    """Put rows into two stores of one place, with different namespaces, and list those of the first."""
    rows = [row(f"id-{number}")._replace(stored_at=NOW + number, expires_at=NOW + number + DAY) for number in range(5)]
    delayed = row("delayed", b"")._replace(state="sent", stored_at=NOW + 2.5)
    own = [row(record_id("id-1")), row(stored_id("id-1")), row("expired", expires_at=NOW), row("ü\\", b"")]
    assert store.put([*rows, delayed, *own]) == {}
    assert store.put([rows[0]._replace(reply=b"2", state="failed", stored_at=NOW + 9)]) == {}
    with closing(other):
        assert other.put([row("foreign")]) == {}
    listed = store.latest(20, NOW, DAY)
    assert [one.id for one in listed] == ["id-0", "id-4", "id-3", "delayed", "id-2", "id-1", "ü\\"]
    assert listed[1] == rows[4]._replace(reply=b"")
    assert [one.id for one in store.latest(2, NOW, DAY, "done")] == ["id-4", "id-3"]
    assert [one.id for one in store.latest(9, NOW, DAY, "sent")] == ["delayed"]
    assert store.latest(9, NOW, DAY, "running") == []
