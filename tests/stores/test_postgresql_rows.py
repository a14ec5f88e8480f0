"""Rows and ids that PostgreSQL does not like, and which of a batch fail."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

from amqpworker.errors import ResultStoreError
from amqpworker.results.postgresql import PostgresStore
from amqpworker.results.postgresql_put import LARGEST_ROW
from amqpworker.results.postgresql_sql import EXPIRE
from amqpworker.results.row import ResultRow
from amqpworker.results.row_listing import RowListing
from amqpworker.results.store import ResultNotStorable
from tests.stores.postgres_server import PostgresServer
from tests.unit.results.listed import check_listing
from tests.unit.results.rows import LATER, get, put, row


@pytest.fixture
def store(postgres: PostgresServer, database: str) -> Iterator[PostgresStore]:
    with closing(PostgresStore(postgres.url(database), "shop")) as store:
        yield store


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "EUC_JP"])
def test_texts_are_stored_whatever_the_encoding_of_the_database(postgres: PostgresServer, encoding: str) -> None:
    name = f"encoded_{encoding.lower()}"
    postgres.execute(f"CREATE DATABASE {name} ENCODING {encoding} TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
    ids = ["ü", "日本", "\U0001f600", "\udcff", "a\0b", "\\x00", "a\\", "\\", "\ud83d\ude00"]
    rows = {one: row(one, one.encode("utf-8", "surrogatepass"))._replace(task=one, state=one) for one in ids}
    with closing(PostgresStore(postgres.url(name), "ü日\\")) as store:
        assert store.put(list(rows.values())) == {}
        assert store.get(ids) == rows
        store.delete(ids)
        assert store.get(ids) == {}
    postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_long_ids_differ_by_their_ends(store: PostgresStore) -> None:
    """An entry of an index has 2,704 bytes at most, after compression."""
    chosen = random.Random(5)
    noise = "".join(chosen.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=20_000))
    ids = [noise, noise + "1", noise[:1000], noise[:1001], "\\" * 600]
    assert store.put([row(one, b"%d" % number) for number, one in enumerate(ids)]) == {}
    assert {one: found.reply for one, found in store.get(ids).items()} == {
        one: b"%d" % number for number, one in enumerate(ids)
    }


def test_a_row_that_is_too_large_fails_alone(store: PostgresStore) -> None:
    huge = bytes(1_000_000_001)
    errors = store.put([row("a"), row("huge", huge), row("z")])
    assert set(errors) == {"huge"}
    assert isinstance(errors["huge"], ResultNotStorable)
    assert f"takes at most {LARGEST_ROW}" in str(errors["huge"])
    assert set(store.get(["a", "huge", "z"])) == {"a", "z"}


def test_a_batch_of_large_rows_is_stored_in_several_transactions(store: PostgresStore) -> None:
    rows = {f"large-{number}": row(f"large-{number}", bytes(3_000_000)) for number in range(10)}
    assert store.put(list(rows.values())) == {}
    assert store.get(rows) == rows


def test_numbers_that_do_not_fit_fail_alone(store: PostgresStore) -> None:
    many = [row(str(number)) for number in range(500)]
    errors = store.put([*many, row("odd")._replace(attempt=2**80), row("endless", expires_at=float("inf"))])
    assert {one: type(error) for one, error in errors.items()} == {"odd": ResultNotStorable}
    assert len(store.get([one.id for one in many])) == 500
    assert store.get(["endless"])["endless"].expires_at == float("inf")


def test_a_row_that_the_owner_of_the_table_forbids_fails_alone(
    store: PostgresStore, postgres: PostgresServer, database: str
) -> None:
    """It may be permitted later."""
    assert store.put([row("before")]) == {}
    postgres.execute("ALTER TABLE amqpworker_results ADD CHECK (task <> 'forbidden')", database)
    rows = [row(f"id-{number:04}") for number in range(1000)]
    rows[377] = rows[377]._replace(task="forbidden", reply=b"confidential")
    errors = store.put(rows)
    assert set(errors) == {"id-0377"}
    assert type(errors["id-0377"]) is ResultStoreError
    assert "violates check constraint" in str(errors["id-0377"])
    assert "confidential" not in str(errors["id-0377"])
    assert len(store.get([one.id for one in rows])) == 999


def test_threads_that_store_at_once_share_transactions(
    store: PostgresStore, postgres: PostgresServer, database: str
) -> None:
    put(store, "first")
    with psycopg.connect(postgres.url(database)) as other:
        other.execute("LOCK TABLE amqpworker_results IN SHARE MODE")
        threads = [threading.Thread(target=put, args=(store, str(number))) for number in range(20)]
        for thread in threads:
            thread.start()
        # the first one waits for the table, the others for it
        while len(store._waiting) < 19:
            threading.Event().wait(0.01)
    for thread in threads:
        thread.join(30)
    ((transactions,),) = postgres.execute("SELECT count(DISTINCT xmin::text) FROM amqpworker_results", database)
    assert (transactions, len(store.get([str(number) for number in range(20)]))) == (3, 20)


def test_expired_rows_are_deleted_while_others_store_them_again(
    store: PostgresStore, postgres: PostgresServer, database: str
) -> None:
    """A row that another transaction has locked is left to the next time."""
    old = [row(f"old-{number}", expires_at=10.0) for number in range(5)]
    assert store.put(old) == {}
    with psycopg.connect(postgres.url(database)) as other:
        other.execute("UPDATE amqpworker_results SET expires_at = %s WHERE id = 'old-3'", (LATER,))
        assert store.expire(11.0, 100) == 4
    assert set(store.get([one.id for one in old])) == {"old-3"}


def test_a_host_whose_clock_is_ahead_deletes_no_rows_of_others(
    store: PostgresStore, postgres: PostgresServer, database: str
) -> None:
    put(store, "a", expires_at=time.time() + 3600.0)
    put(store, "b", expires_at=time.time() - 1.0)
    assert store.expire(time.time() + 2 * 86_400.0, 10) == 1
    assert get(store, "a") == b"1"
    with psycopg.connect(postgres.url(database)) as connection:
        connection.execute("SET enable_seqscan = off")
        plan = str(connection.execute(f"EXPLAIN {EXPIRE}", (1.0, 10)).fetchall())
    assert "Index Scan using amqpworker_results_by_expiry" in plan


def test_what_sql_shows_of_a_row_is_readable(store: PostgresStore, postgres: PostgresServer, database: str) -> None:
    reply = b'{"status":"done","value":5}'
    assert store.put([ResultRow("report-7", "done", "shop.report", reply, "", 1.5, LATER, 2, "shop@host")]) == {}
    found = postgres.execute(
        "SELECT id, task, attempt, convert_from(reply, 'UTF8')::jsonb -> 'value', to_timestamp(stored_at) AT TIME ZONE 'UTC'"
        " FROM amqpworker_results",
        database,
    )
    assert [one[:4] for one in found] == [("report-7", "shop.report", 2, 5)]
    assert found[0][4].isoformat() == "1970-01-01T00:00:01.500000"


def test_a_deadlock_with_another_program_is_not_an_error(
    store: PostgresStore, postgres: PostgresServer, database: str
) -> None:
    put(store, "a")
    put(store, "b")
    with psycopg.connect(postgres.url(database)) as other:
        other.execute("SET deadlock_timeout = '60s'")
        other.execute("UPDATE amqpworker_results SET task = 'x' WHERE id = 'b'")
        storing = threading.Thread(target=lambda: errors.update(store.put([row("a", b"2"), row("b", b"2")])))
        errors: dict[str, ResultStoreError] = {}
        storing.start()
        while not postgres.execute("SELECT 1 FROM pg_locks WHERE NOT granted", database):
            threading.Event().wait(0.01)
        # each waits for the other: the server ends the transaction of the store, after its deadlock_timeout
        other.execute("UPDATE amqpworker_results SET task = 'x' WHERE id = 'a'")
        other.commit()
    storing.join(30)
    assert errors == {}
    assert (get(store, "a"), get(store, "b")) == (b"2", b"2")


LIMIT_ONCE = """
CREATE SEQUENCE tries;
CREATE FUNCTION limited() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('tries') <= 1 THEN RAISE 'too many notifications in the NOTIFY queue' USING ERRCODE = '54000'; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER limited BEFORE INSERT ON amqpworker_results FOR EACH ROW EXECUTE FUNCTION limited();
"""


def test_a_row_is_stored_without_a_notification_if_there_is_no_room_for_one(
    store: PostgresStore, postgres: PostgresServer, database: str
) -> None:
    """A listener that never reads lets the server's queue of notifications run full."""
    put(store, "first")
    postgres.execute(LIMIT_ONCE, database)
    assert store.put([row("a")]) == {}
    assert get(store, "a") == b"1"
    postgres.execute("DROP SEQUENCE tries; CREATE SEQUENCE tries MINVALUE -100 START -100", database)
    (error,) = store.put([row("b")]).values()
    assert isinstance(error, ResultNotStorable)


def test_the_latest_rows_are_listed_without_replies_and_without_rows_about_others(
    store: PostgresStore, postgres: PostgresServer, database: str
) -> None:
    assert isinstance(store, RowListing)
    store.put([row("x" * 2000)])  # of which only a hash is known
    check_listing(store, PostgresStore(postgres.url(database), "other"))
