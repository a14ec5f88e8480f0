"""Rows about sent messages: stored by a thread of their own, and forgotten if the store does not have them."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence

import pytest

from amqpworker.client.sent_rows import MOST_WAITING, SentRows
from amqpworker.errors import ResultStoreError
from amqpworker.results.row import ResultRow
from tests.support import wait_until
from tests.unit.worker.settling import Store


def row(task_id: str) -> ResultRow:
    return ResultRow(task_id, "sent", "example", b"", "", 1.0, 4e9)


class SlowStore(Store):
    """Waits in `put` until it may continue, and counts the calls."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.puts: list[int] = []

    def put(self, rows: Sequence[ResultRow]) -> Mapping[str, ResultStoreError]:
        self.go.wait(10)
        self.puts.append(len(rows))
        return super().put(rows)


def test_what_gathers_while_the_store_is_busy_is_one_batch_and_closing_waits_for_it() -> None:
    store = SlowStore()
    rows = SentRows(store)
    for number in range(50):
        rows.put(row(f"id-{number}"))
    assert not store.rows
    store.go.set()
    rows.close(10.0)
    assert len(store.rows) == 50
    assert len(store.puts) <= 3
    rows.put(row("later"))
    rows.close(10.0)
    assert "later" in store.rows


def test_rows_that_cannot_be_stored_are_logged_once_and_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    store = Store()
    store.failures = 2
    rows = SentRows(store)
    rows.put(row("lost"))
    rows.close(10.0)
    assert not store.rows
    assert [one.getMessage() for one in caplog.records if "tracking_not_stored" in one.getMessage()]


def test_a_store_that_hangs_delays_closing_no_longer_than_allowed(caplog: pytest.LogCaptureFixture) -> None:
    store = SlowStore()
    rows = SentRows(store)
    for number in range(MOST_WAITING + 10):
        rows.put(row(f"id-{number}"))
    rows.close(0.01)
    store.go.set()
    assert any("tracking_not_stored" in one.getMessage() for one in caplog.records)


def test_a_forked_child_starts_a_thread_of_its_own() -> None:
    store = Store()
    rows = SentRows(store)
    rows.put(row("parent"))
    child = os.fork()
    if child == 0:
        rows.put(row("child"))
        rows.close(5.0)
        os._exit(0 if "child" in store.rows else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    rows.close(5.0)
    assert "parent" in store.rows


def test_the_thread_of_rows_that_were_dropped_ends_once_they_are_stored() -> None:
    store = SlowStore()
    rows = SentRows(store)
    rows.put(row("a"))
    assert any(thread.name == "amqpworker-sent-rows" for thread in threading.enumerate())
    del rows
    store.go.set()
    wait_until(lambda: all(thread.name != "amqpworker-sent-rows" for thread in threading.enumerate()))
    assert set(store.rows) == {"a"}
