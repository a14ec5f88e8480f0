"""Writing results one by one: their times, their errors, and the end of those that have expired."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from amqpworker.results.result_writer import ResultWriter
from amqpworker.results.sqlite import SqliteStore
from amqpworker.results.store import ResultRow


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(path, lock_timeout=0.05)
    yield store
    store.close()


def write(writer: ResultWriter, task_id: str) -> None:
    assert writer.write(task_id, "done", "shop.task", b"1", "") is None


def rows(path: Path) -> int:
    connection = sqlite3.connect(path)
    (count,) = connection.execute("SELECT count(*) FROM results").fetchone()
    connection.close()
    return int(count)


def test_a_row_has_the_times_of_the_clock(store: SqliteStore, clock: Clock) -> None:
    write(ResultWriter(store, 60, clock), "a")
    assert store.get(["a"]) == {"a": ResultRow("a", "done", "shop.task", b"1", "", 1_000_000.0, 1_000_060.0)}


def test_an_error_is_returned(store: SqliteStore, path: Path) -> None:
    store.check_writable()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert "keeps the file locked" in str(ResultWriter(store, 60).write("a", "done", "shop.task", b"1", ""))
    other.close()


def test_expired_results_leave_the_store_a_bounded_number_at_a_time(
    store: SqliteStore, path: Path, clock: Clock
) -> None:
    writer = ResultWriter(store, 10, clock)
    for number in range(600):
        write(writer, f"old-{number}")
    clock.now += 11
    left = []
    for number in range(512):
        write(writer, f"new-{number}")
        left.append(rows(path) - number - 1)
    assert left[-1] == 0
    assert max(before - after for before, after in zip([600, *left], left, strict=False)) <= 128


def test_a_process_that_stores_little_deletes_expired_results_too(path: Path, clock: Clock) -> None:
    for number in range(3):
        store = SqliteStore(path)
        write(ResultWriter(store, 1, clock), str(number))
        store.close()
        clock.now += 10
    assert rows(path) == 1
