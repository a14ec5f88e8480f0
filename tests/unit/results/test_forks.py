"""Forks of a process that has results in a SQLite file, while its threads use it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from amqpworker.errors import ResultStoreError
from amqpworker.results import sqlite_file
from amqpworker.results.sqlite import SqliteStore
from tests.support import wait_until
from tests.unit.results.rows import get, put

# Python 3.12 warns of what these tests do
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(path, "shop", lock_timeout=20)
    put(store, "before")
    yield store
    store.close()


LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.readline()
connection.execute("COMMIT")
"""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Have another process keep the file locked: SQLite treats a process as one."""
    command = [sys.executable, "-c", LOCK, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline()
        yield
        other.communicate(b"enough\n")


def in_child(work: Callable[[], bool]) -> int:
    child = os.fork()
    if child == 0:
        right = False
        try:
            right = work()
        finally:
            os._exit(0 if right else 1)
    return child


def test_a_fork_does_not_wait_for_stores_that_wait_for_a_locked_file(store: SqliteStore, path: Path) -> None:
    def both() -> bool:
        put(store, "child")
        return get(store, "before") == b"1"

    children = []
    with ThreadPoolExecutor(8) as pool:
        with locked(path):
            storing = [pool.submit(put, store, str(number)) for number in range(8)]
            wait_until(lambda: len(store._waiting) == 8, what="they wait for the file")
            for _ in range(3):
                began = time.monotonic()
                children.append(in_child(both))
                assert time.monotonic() - began < 2.0
            assert not any(one.done() for one in storing)
        for one in storing:
            one.result(20)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    assert all(get(store, name) == b"1" for name in ("child", *map(str, range(8))))


def test_a_child_that_was_forked_in_the_middle_of_a_commit_refuses_to_store(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite has inherited what it knows of locks, which is wrong here: any use might damage the file."""
    monkeypatch.setattr(sqlite_file, "SLOWEST_COMMIT", 0.05)

    def refused() -> bool:
        with pytest.raises(ResultStoreError, match="was forked while"):
            put(store, "child")
        return get(store, "before") == b"1"  # by a connection that was not in use

    child = store._writer.use(lambda connect: in_child(refused) if connect() else 0)
    assert os.waitpid(child, 0)[1] == 0
    put(store, "parent")
    assert get(store, "parent") == b"1"
