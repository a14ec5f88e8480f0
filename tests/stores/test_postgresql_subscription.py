"""Changes that PostgreSQL reports, and that it does not report through a pooler."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

from amqpworker.results.postgresql import PostgresStore
from amqpworker.results.postgresql_subscription import PostgresSubscription
from tests.stores.postgres_server import PostgresServer
from tests.support import wait_until
from tests.unit.results.rows import get, put, row

# Python 3.12 warns of what these tests do
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture
def store(postgres: PostgresServer, database: str) -> Iterator[PostgresStore]:
    with closing(PostgresStore(postgres.url(database), "shop")) as store:
        yield store


@pytest.fixture
def subscription(store: PostgresStore) -> Iterator[PostgresSubscription]:
    with closing(store.subscribe()) as subscription:
        assert subscription.wait(0) is None, "it has just connected"
        assert subscription.poll_every == 1
        yield subscription


def collected(subscription: PostgresSubscription, wanted: set[str]) -> set[str]:
    """Return the ids that are reported until all that are wanted were."""
    found: set[str] = set()
    until = time.monotonic() + 20
    while not wanted <= found and time.monotonic() < until:
        hint = subscription.wait(1)
        assert hint is not None
        found.update(hint)
    return found


def test_each_id_of_a_large_batch_is_reported(store: PostgresStore, subscription: PostgresSubscription) -> None:
    """A notification has 7,999 bytes at most: a longer one would fail together with the rows."""
    ids = {f"{number:05}-{'x' * 60}" for number in range(3000)}
    assert store.put([row(one) for one in ids]) == {}
    assert collected(subscription, ids) == ids


def test_odd_ids_are_reported_as_they_are(store: PostgresStore, subscription: PostgresSubscription) -> None:
    ids = {"", " ", "a b", "x\0y", "\udcff", "日本\n", "\\x20", "*", "y" * 7900}
    assert store.put([row(one) for one in ids]) == {}
    assert collected(subscription, ids) == ids


def test_an_id_that_is_too_long_to_be_reported_means_any(
    store: PostgresStore, subscription: PostgresSubscription
) -> None:
    assert store.put([row("a"), row("long" * 2000)]) == {}
    assert subscription.wait(20) is None


def test_rows_of_other_namespaces_are_not_reported(
    store: PostgresStore, subscription: PostgresSubscription, postgres: PostgresServer, database: str
) -> None:
    for name in ("bank", "shop 2", "shop\\", "shopping"):
        with closing(PostgresStore(postgres.url(database), name)) as other:
            put(other, f"of {name}")
    put(store, "mine")
    assert subscription.wait(20) == ["mine"]


def test_a_wait_without_changes_takes_no_longer_than_its_timeout(subscription: PostgresSubscription) -> None:
    began = time.monotonic()
    assert subscription.wait(0.3) == []
    assert 0.25 < time.monotonic() - began < 5


def test_a_connection_that_is_lost_is_replaced_and_anything_may_have_changed(
    store: PostgresStore, subscription: PostgresSubscription, postgres: PostgresServer, database: str
) -> None:
    listening = (
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}' AND query LIKE 'LISTEN%'"
    )
    assert postgres.execute(listening) == [(True,)]
    assert subscription.wait(20) is None
    put(store, "a")
    assert subscription.wait(20) == ["a"]


def test_a_child_subscribes_by_itself(store: PostgresStore, subscription: PostgresSubscription) -> None:
    child = os.fork()
    if child == 0:
        right = False
        try:
            subscription.wake()
            right = subscription.wait(0) is None and [] in (subscription.wait(0), subscription.wait(0))
            subscription.close()
        finally:
            os._exit(0 if right else 1)
    assert os.waitpid(child, 0)[1] == 0
    waking = threading.Timer(0.2, put, (store, "a"))
    waking.start()
    assert subscription.wait(20) == ["a"], "the child's wake is not ours"
    waking.join()


def test_through_a_pooler_rows_are_to_be_read_often_and_one_line_reports_it(
    pgbouncer: int, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"postgresql://postgres:hidden@127.0.0.1:{pgbouncer}/{database}"
    with closing(PostgresStore(url, "shop")) as store, caplog.at_level(logging.WARNING):
        for _ in range(2):
            with closing(store.subscribe()) as subscription:
                assert subscription.wait(0) is None
                assert subscription.poll_every == 0.1
                put(store, "a")
                assert subscription.wait(0.1) == ()
    lines = [one.getMessage() for one in caplog.records if "result_hints_missing" in one.getMessage()]
    assert len(lines) == 1
    assert "hidden" not in caplog.text


def test_rows_of_a_standby_are_to_be_read_often() -> None:
    """It has no notifications: a process that waits does not connect to it again and again."""
    server = PostgresServer()
    try:
        server.start()
        with closing(PostgresStore(server.url(), "shop")) as store:
            put(store, "a")
            server.stop()
            (server.folder / "data" / "standby.signal").touch()
            server.start()
            with closing(store.subscribe()) as subscription:
                assert subscription.wait(0) is None
                assert subscription.poll_every == 0.1
                assert subscription.wait(0.1) == ()
            assert get(store, "a") == b"1"
    finally:
        server.discard()


def test_many_clients_of_a_pooler_share_few_connections(
    pgbouncer: int, database: str, postgres: PostgresServer
) -> None:
    """No transaction is left open, and no statement is prepared on a connection that another client gets."""
    url = f"postgresql://postgres@127.0.0.1:{pgbouncer}/{database}"
    stores = [PostgresStore(url, "shop") for _ in range(12)]

    def work(number: int) -> None:
        for turn in range(15):
            put(stores[number], f"{number}-{turn}")
            assert get(stores[number], f"{number}-{turn}") == b"1"

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    ids = [f"{number}-{turn}" for number in range(12) for turn in range(15)]
    assert len(stores[0].get(ids)) == len(ids)
    for one in stores:
        one.close()


def test_a_listener_that_does_not_read_keeps_no_row_from_being_stored(
    store: PostgresStore, postgres: PostgresServer, database: str
) -> None:
    with psycopg.connect(postgres.url(database)) as other:
        other.execute("LISTEN amqpworker_results")
        other.commit()
        other.execute("SELECT 1")
        for number in range(20):
            put(store, f"id-{number}")
    wait_until(lambda: len(store.get([f"id-{number}" for number in range(20)])) == 20, what="all are stored")
