"""Databases, users and schemas that do not fit: what is refused, with what to do, and never with a password."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from amqpworker.errors import ConfigError, ResultStoreError
from amqpworker.results.postgresql import PostgresStore
from amqpworker.results.postgresql_sql import SHOWN
from amqpworker.results.store import open_store
from tests.cli import Ended, run_here
from tests.stores.postgres_server import PostgresServer
from tests.unit.results.rows import get, put, row


@pytest.fixture
def url(postgres: PostgresServer, database: str) -> str:
    return postgres.url(database)


@pytest.fixture
def clerk(postgres: PostgresServer, database: str) -> Iterator[str]:
    """The URL for a user who may create nothing."""
    postgres.execute(f"CREATE ROLE clerk_{database} LOGIN PASSWORD 'hidden'")
    yield f"postgresql://clerk_{database}:hidden@127.0.0.1:{postgres.port}/{database}"
    postgres.execute(f"DROP OWNED BY clerk_{database}", database)
    postgres.execute(f"DROP ROLE clerk_{database}")


def refused(url: str, declare: bool = True) -> str:
    """Return why a store cannot be used, which each use reports."""
    with closing(PostgresStore(url, "shop", declare)) as store:
        with pytest.raises(ConfigError) as checked:
            store.check_writable()
        with pytest.raises(ConfigError):
            store.get(["a"])
        (error,) = store.put([row("a")]).values()
        assert type(error) is ResultStoreError, "the row may be stored once this was corrected"
        assert str(checked.value).partition(": ")[2] in str(error)
        with pytest.raises(ResultStoreError):
            store.delete(["a"])
    assert "hidden" not in str(checked.value)
    return str(checked.value)


def test_a_user_who_may_not_create_tables_is_shown_the_command(
    postgres: PostgresServer, database: str, clerk: str
) -> None:
    text = refused(clerk)
    assert "this user may not create it (permission denied for schema public): run" in text
    assert "amqpworker results init" in text
    assert "amqpworker results show-sql" in text
    postgres.execute(SHOWN, database)
    assert "GRANT SELECT, INSERT, UPDATE, DELETE ON amqpworker_results TO" in refused(clerk)
    postgres.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON amqpworker_results TO clerk_{database}", database)
    with closing(PostgresStore(clerk, "shop")) as store:
        put(store, "a")
        assert get(store, "a") == b"1"
        store.delete(["a"])
        assert store.expire(1.0, 1) == 0


def test_a_user_who_may_only_read_reads(postgres: PostgresServer, database: str, clerk: str, url: str) -> None:
    with closing(PostgresStore(url, "shop")) as store:
        put(store, "a")
    postgres.execute(f"GRANT SELECT ON amqpworker_results TO clerk_{database}", database)
    with closing(PostgresStore(clerk, "shop")) as store:
        assert get(store, "a") == b"1"
        with pytest.raises(ConfigError, match="permission denied for table amqpworker_results"):
            store.check_writable()
        (error,) = store.put([row("b")]).values()
        assert "permission denied" in str(error)
        with closing(store.subscribe()) as subscription:
            assert subscription.wait(0) is None


def test_a_database_that_is_read_only_may_become_writable(url: str) -> None:
    """A standby, before it takes over."""
    with closing(PostgresStore(url, "shop")) as store:
        put(store, "a")
    read_only = f"{url}?options=-cdefault_transaction_read_only%3Don"
    with closing(PostgresStore(read_only, "shop")) as store:
        assert get(store, "a") == b"1"
        assert "read-only transaction" in str(store.check_writable())
        (error,) = store.put([row("b")]).values()
        assert type(error) is ResultStoreError


def test_without_declare_nothing_is_created(postgres: PostgresServer, database: str, url: str) -> None:
    assert "declare=False keeps it from being created: run `amqpworker results init`" in refused(url, declare=False)
    assert postgres.execute("SELECT to_regclass('amqpworker_results')", database) == [(None,)]
    postgres.execute(SHOWN, database)
    with closing(open_store(url, "shop", declare=False)) as store:
        put(store, "a")
        assert get(store, "a") == b"1"


def test_a_table_of_another_program_is_refused_and_left_alone(
    postgres: PostgresServer, database: str, url: str
) -> None:
    postgres.execute("CREATE TABLE amqpworker_results (mine text)", database)
    assert "has a table amqpworker_results of another program" in refused(url)
    postgres.execute("COMMENT ON TABLE amqpworker_results IS 'amqpworker results, version x'", database)
    assert "of another program" in refused(url)
    postgres.execute("DROP TABLE amqpworker_results; CREATE VIEW amqpworker_results AS SELECT 1", database)
    assert "of another program" in refused(url)


def test_a_newer_version_is_refused(postgres: PostgresServer, database: str, url: str) -> None:
    postgres.execute(SHOWN, database)
    postgres.execute("COMMENT ON TABLE amqpworker_results IS 'amqpworker results, version 2'", database)
    assert "has version 2 of the schema of results, and this amqpworker knows 1" in refused(url)


def test_the_table_is_in_the_first_schema_of_the_search_path(postgres: PostgresServer, database: str, url: str) -> None:
    postgres.execute("CREATE SCHEMA jobs", database)
    with closing(PostgresStore(f"{url}?options=-csearch_path%3Djobs,public", "shop")) as store:
        put(store, "a")
    assert postgres.execute("SELECT id FROM jobs.amqpworker_results", database) == [("a",)]
    assert "no schema has been selected to create in" in refused(f"{url}?options=-csearch_path%3Dmissing")


def test_a_table_that_is_dropped_meanwhile_is_created_again(postgres: PostgresServer, database: str, url: str) -> None:
    with closing(PostgresStore(url, "shop")) as store:
        put(store, "a")
        assert get(store, "a") == b"1"
        postgres.execute("DROP TABLE amqpworker_results", database)
        assert get(store, "a") is None
        postgres.execute("DROP TABLE amqpworker_results", database)
        put(store, "a")
        assert get(store, "a") == b"1"


def test_a_wrong_login_or_database_is_refused(postgres: PostgresServer, database: str) -> None:
    postgres.execute("CREATE ROLE locked LOGIN PASSWORD 'right'")
    try:
        at = f"127.0.0.1:{postgres.port}"
        assert "password authentication failed" in refused(f"postgresql://locked:hidden@{at}/{database}")
        assert "no password supplied" in refused(f"postgres://locked@{at}/{database}")
        assert 'database "missing" does not exist' in refused(f"postgresql://postgres:hidden@{at}/missing")
        assert 'role "stranger" does not exist' in refused(f"postgresql://stranger:hidden@{at}/{database}")
    finally:
        postgres.execute("DROP ROLE locked")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:hid/den@host/db",
        "postgresql://u:hid@den@host/db",
        "postgresql://u:1/hidden@host/db",
        "postgresql://u:hidden@host:port/db",
        "postgresql://u:hidden@host/db?colour=red",
        "postgresql://u:hidden%ZZ@host/db",
        "postgresql://u:hidden@[host/db",
    ],
)
def test_a_malformed_url_is_refused_at_once_and_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_store(url, "shop")
    shown = repr(caught.value) + repr(caught.value.__cause__) + repr(caught.value.__context__)
    assert "hidden" not in str(caught.value)
    assert "hid" not in str(caught.value)
    assert "hidden" not in shown


def test_a_missing_package_is_named_with_its_extra() -> None:
    code = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from amqpworker import App, ConfigError\n"
        "try: App(results='postgresql://u:hidden@h/d')\n"
        "except ConfigError as error: print(error)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "needs psycopg: pip install 'amqpworker[postgresql]'" in ended.stdout
    assert "hidden" not in ended.stdout


def test_psycopg_is_loaded_only_for_such_a_store() -> None:
    code = "import sys; from amqpworker import App; App(results='sqlite:///x.db'); print('psycopg' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"False\n"


# the commands


@pytest.fixture
def cli(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str
) -> Callable[[str], Ended]:
    (tmp_path / "pgshop.py").write_text(
        f"from amqpworker import App\napp = App('amqp://127.0.0.1:1/', results={url!r})\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "pgshop", raising=False)
    monkeypatch.setenv("AMQPWORKER_APP", "pgshop:app")
    monkeypatch.setenv("AMQPWORKER_DECLARE", "false")
    return lambda line: run_here(capsys, *line.split())


def test_init_creates_the_table_also_if_apps_may_not(cli: Callable[[str], Ended], url: str) -> None:
    missing = cli("results show a")
    assert (missing.code, "run `amqpworker results init`" in missing.complaint()) == (2, True)
    assert (cli("results init").out, cli("results init --json").json) == (
        "The result store is ready.\n",
        {"ready": True},
    )
    with closing(PostgresStore(url, "amqpworker", declare=False)) as store:
        put(store, "a", b'{"status":"done","value":5}')
    shown = cli("results show a --json").json
    assert (shown[0]["state"], shown[0]["reply"]) == ("done", {"status": "done", "value": 5})


def test_the_sql_that_is_shown_can_be_executed(cli: Callable[[str], Ended], url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(cli("results show-sql").out.encode())
    assert cli("results show a").code == 1
    assert cli("results init").code == 0
