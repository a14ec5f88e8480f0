"""A PostgreSQL that is killed, restarted, stopped or locked, and processes that are forked."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import psycopg
import pytest

from amqpworker.errors import ResultStoreError
from amqpworker.results.postgresql import PostgresStore
from tests.stores.postgres_server import PostgresServer
from tests.support import wait_until
from tests.unit.results.rows import get, put, row

# Python 3.12 warns of what these tests do
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

ENOUGH = 300


@pytest.fixture
def store(postgres: PostgresServer, database: str) -> Iterator[PostgresStore]:
    with closing(PostgresStore(postgres.url(database), "shop")) as store:
        put(store, "before")
        assert get(store, "before") == b"1"
        yield store


@pytest.fixture
def impatient(postgres: PostgresServer, database: str) -> Iterator[PostgresStore]:
    """A store that does not wait long for an answer."""
    with closing(PostgresStore(f"{postgres.url(database)}?connect_timeout=2", "shop", answer_timeout=0.5)) as store:
        put(store, "before")
        yield store


def in_child(work: Callable[[], bool]) -> int:
    child = os.fork()
    if child == 0:
        right = False
        try:
            right = work()
        finally:
            os._exit(0 if right else 1)
    return child


def backends(postgres: PostgresServer, database: str) -> set[int]:
    query = f"SELECT pid FROM pg_stat_activity WHERE datname = '{database}' AND application_name = 'amqpworker shop'"
    return {int(pid) for (pid,) in postgres.execute(query)}


def wait_for_more(stored: list[str]) -> None:
    known = len(stored)
    wait_until(lambda: len(stored) > known + ENOUGH, timeout=60, what="rows are stored")


def test_what_put_has_returned_for_is_there_after_the_server_was_killed(
    postgres: PostgresServer, store: PostgresStore
) -> None:
    stored: list[str] = []
    failed: list[ResultStoreError] = []
    stop = threading.Event()

    def work(name: int) -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            rows = [row(f"{name}-{turn}-{number}") for number in range(20)]
            errors = store.put(rows)
            stored.extend(one.id for one in rows if one.id not in errors)
            failed.extend(errors.values())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2):
            wait_for_more(stored)
            postgres.kill()
            postgres.start()
        wait_for_more(stored)
    finally:
        stop.set()
    for thread in threads:
        thread.join(60)
    assert len(store.get(stored)) == len(stored) > 3 * ENOUGH
    assert all("was not stored in postgresql://" in str(error) for error in failed)


def test_a_server_that_was_restarted_between_two_uses_costs_no_error(
    postgres: PostgresServer, store: PostgresStore
) -> None:
    postgres.stop()
    postgres.start()
    assert store.put([row("after")]) == {}
    assert get(store, "after") == b"1"
    assert store.check_writable() is None
    postgres.kill()
    postgres.start()
    assert get(store, "after") == b"1"
    store.delete(["after"])
    assert get(store, "after") is None


def test_a_connection_that_is_ended_while_it_waits_is_opened_again(
    postgres: PostgresServer, database: str, store: PostgresStore
) -> None:
    with psycopg.connect(postgres.url(database)) as other:
        other.execute("LOCK TABLE amqpworker_results IN SHARE MODE")
        storing = threading.Thread(target=put, args=(store, "late"))
        storing.start()
        waits = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        wait_until(lambda: bool(postgres.execute(waits)), what="it waits for the table")
        postgres.execute(f"SELECT pg_terminate_backend(pid) FROM ({waits}) AS waiting")
    storing.join(30)
    assert get(store, "late") == b"1"


def test_a_server_that_is_away_is_an_error_of_each_row_and_no_config_error(
    postgres: PostgresServer, store: PostgresStore
) -> None:
    postgres.stop()
    try:
        errors = store.put([row("a"), row("b")])
        assert {one: type(error) for one, error in errors.items()} == {"a": ResultStoreError, "b": ResultStoreError}
        assert str(errors["a"]).endswith("failed: Connection refused."), "and no question whether it is running"
        with pytest.raises(ResultStoreError, match=r"Results cannot be read from .*: .*Connection refused"):
            store.get(["a"])
        with pytest.raises(ResultStoreError, match="cannot be deleted"):
            store.delete(["a"])
        with pytest.raises(ResultStoreError):
            store.expire(1.0, 1)
        assert "cannot be stored" in str(store.check_writable())
        with closing(store.subscribe()) as subscription, pytest.raises(ResultStoreError, match="Changes of results"):
            subscription.wait(1)
    finally:
        postgres.start()
    assert store.put([row("a")]) == {}


def test_a_server_that_is_stopped_keeps_no_caller_for_long(postgres: PostgresServer, impatient: PostgresStore) -> None:
    postgres.freeze()
    began = time.monotonic()
    try:
        errors = impatient.put([row("a")])
        assert "did not answer within 0.5 s" in str(errors["a"])
        assert "timeout expired" in str(impatient.check_writable())
        assert time.monotonic() - began < 20
    finally:
        postgres.thaw()
    assert impatient.put([row("a")]) == {}


def test_a_server_that_is_stopped_does_not_keep_callers_one_after_the_other(
    postgres: PostgresServer, impatient: PostgresStore
) -> None:
    postgres.freeze()
    try:
        began = time.monotonic()
        threads = [threading.Thread(target=error_of_get, args=(impatient,)) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert time.monotonic() - began < 10, "each would wait two seconds for its connection"
    finally:
        postgres.thaw()
    assert get(impatient, "before") == b"1"


def error_of_get(store: PostgresStore) -> None:
    with pytest.raises(ResultStoreError):
        store.get(["before"])


def test_attempts_that_wait_for_a_locked_table_do_not_add_up(
    postgres: PostgresServer, database: str, impatient: PostgresStore
) -> None:
    with psycopg.connect(postgres.url(database)) as other:
        other.execute("LOCK TABLE amqpworker_results")
        for _ in range(3):
            assert "did not answer" in str(impatient.put([row("a")])["a"])
        waits = f"SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = '{database}'"
        wait_until(lambda: not postgres.execute(waits), what="none waits any more")
    assert impatient.put([row("a")]) == {}


def test_a_host_that_does_not_answer_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://u:hidden@127.0.0.1:{silent.getsockname()[1]}/x?connect_timeout=2"
        store = PostgresStore(url, "shop")
        began = time.monotonic()
        (error,) = store.put([row("a")]).values()
        assert time.monotonic() - began < 20
        assert "timeout expired" in str(error)
        assert "hidden" not in str(error)


def test_a_child_has_connections_of_its_own_and_leaves_those_of_its_parent(
    postgres: PostgresServer, database: str, store: PostgresStore
) -> None:
    before = backends(postgres, database)

    def both() -> bool:
        put(store, "child")
        return get(store, "before") == b"1" and not backends(postgres, database).isdisjoint(before)

    children = [in_child(both) for _ in range(3)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    assert backends(postgres, database) >= before
    assert get(store, "child") == b"1"

    def closes() -> bool:
        store.close()
        return True

    closed = in_child(closes)
    assert os.waitpid(closed, 0)[1] == 0
    put(store, "parent")
    assert backends(postgres, database) >= before, "no connection was opened again"


def test_a_process_forks_while_its_threads_store(store: PostgresStore) -> None:
    stop = threading.Event()
    errors: list[ResultStoreError] = []

    def work(name: int) -> None:
        while not stop.is_set():
            errors.extend(store.put([row(f"{name}-{number}") for number in range(10)]).values())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()

    def both() -> bool:
        put(store, f"child-{os.getpid()}")
        return get(store, "before") == b"1"

    children = [in_child(both) for _ in range(8)]
    ends = [os.waitpid(child, 0)[1] for child in children]
    stop.set()
    for thread in threads:
        thread.join(30)
    assert (ends, errors) == ([0] * 8, [])
    assert len(store.get([f"child-{child}" for child in children])) == 8


MANY = """
import sys
from amqpworker.results.postgresql import PostgresStore
from tests.unit.results.rows import row
store = PostgresStore(sys.argv[1], "shop")
ids = [str(number) for number in range(100)]
sys.stdin.readline()
for turn in range(10):
    errors = store.put([row(one, b"%d" % turn) for one in (ids if int(sys.argv[2]) % 2 else ids[::-1])])
    assert errors == {}, errors
store.put([row("process-" + sys.argv[2])])
"""


def test_many_processes_begin_at_once_in_an_empty_database(postgres: PostgresServer, database: str) -> None:
    url = postgres.url(database)
    command = [sys.executable, "-c", MANY, url]
    running = [
        subprocess.Popen([*command, str(number)], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for number in range(6)
    ]
    for one in running:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    ended = [(one.communicate(timeout=60)[1], one.returncode) for one in running]
    assert ended == [("", 0)] * 6
    with closing(PostgresStore(url, "shop")) as store:
        assert len(store.get([f"process-{number}" for number in range(6)])) == 6


def test_a_signal_handler_that_interrupts_a_use_is_refused(store: PostgresStore) -> None:
    refused: list[ResultStoreError] = []

    def on_signal(*_: object) -> None:
        refused.extend(store.put([row("from a handler")]).values())

    before = signal.signal(signal.SIGUSR1, on_signal)
    try:
        with store._writer.turn():
            os.kill(os.getpid(), signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert ["in use by the code that was interrupted" in str(error) for error in refused] == [True]
    put(store, "after")
