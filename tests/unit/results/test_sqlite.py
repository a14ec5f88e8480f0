"""Results in a SQLite file: the contract of every store, then what only a file can suffer."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import pytest

from amqpworker.errors import ConfigError, ResultStoreError
from amqpworker.model.reply import decode_reply
from amqpworker.results.row import ResultRow
from amqpworker.results.row_listing import RowListing
from amqpworker.results.sqlite import SqliteStore, path_of
from amqpworker.results.sqlite_errors import is_permanent
from amqpworker.results.sqlite_schema import SCHEMA_VERSION, prepare
from amqpworker.results.store import ResultNotStorable, open_store
from amqpworker.testing import ResultStoreContract
from tests.unit.results.listed import check_listing
from tests.unit.results.rows import LATER, get, put, row

VERSION_2 = Path(__file__).with_name("version2.sqlite")
VERSION_3 = Path(__file__).with_name("version3.sqlite")
"""Files of earlier versions of the schema, each made by the code of its version."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.db"


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(path, "shop")
    yield store
    store.close()


@pytest.fixture
def sqlite(path: Path) -> Iterator[SqliteStore]:
    """Return a store that does not wait long for other processes."""
    store = SqliteStore(path, "shop", lock_timeout=0.05)
    yield store
    store.close()


class TestContract(ResultStoreContract):
    @pytest.fixture(autouse=True)
    def _file(self, path: Path) -> None:
        self.path = path

    def open_store(self, namespace: str) -> SqliteStore:
        return SqliteStore(self.path, namespace)


def in_other_process(url: str, code: str) -> subprocess.Popen[str]:
    """Run `code` with an open `store` in a process of its own."""
    start = (
        "import sys; from amqpworker.results.store import open_store; from tests.unit.results.rows import put\n"
        f"store = open_store({url!r}, 'shop')\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", start + code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_a_result_that_can_never_be_stored_is_distinguished_from_an_unavailable_store(store: SqliteStore) -> None:
    with pytest.raises(ResultNotStorable, match="too big"):
        put(store, "a", bytes(1_000_000_001))
    put(store, "a")
    assert get(store, "a") == b"1"


def test_several_processes_store_at_once_and_nothing_is_lost(url: str, store: SqliteStore) -> None:
    code = "for i in range(100): put(store, f'{sys.argv[0]}{NUMBER}-{i}')"
    children = [in_other_process(url, f"NUMBER = {number}\n{code}") for number in range(3)]
    for turn in range(100):
        put(store, f"here-{turn}")
    for child in children:
        child.communicate(timeout=60)
    assert [child.returncode for child in children] == [0, 0, 0]
    assert all(get(store, f"-c{number}-{turn}") == b"1" for number in range(3) for turn in range(100))
    assert all(get(store, f"here-{turn}") == b"1" for turn in range(100))


def test_several_processes_create_the_store_at_once(url: str) -> None:
    children = [in_other_process(url, f"put(store, '{number}')") for number in range(4)]
    for child in children:
        child.communicate(timeout=60)
    assert [child.returncode for child in children] == [0, 0, 0, 0]
    found = open_store(url, "shop")
    assert [get(found, str(number)) for number in range(4)] == [b"1"] * 4
    found.close()


@pytest.mark.parametrize(
    "statement", ["PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master"]
)
def test_a_file_that_another_process_creates_meanwhile_is_not_taken_for_that_of_another_program(
    url: str, statement: str
) -> None:
    path = path_of(url)
    others: list[SqliteStore] = []

    def create_by_another(sql: str) -> None:
        if sql == statement and not others:
            others.append(SqliteStore(path, "shop", lock_timeout=0.0))
            others[0].put([row("here")])
            others[0].close()

    connection = sqlite3.connect(path, timeout=0.0, isolation_level=None)
    connection.set_trace_callback(create_by_another)
    with suppress(sqlite3.OperationalError):  # a store would try again
        prepare(connection, path)
    connection.close()
    assert others
    found = open_store(url, "shop")
    put(found, "later")
    assert get(found, "later") == b"1"
    found.close()


def test_kill_9_keeps_what_a_store_call_returned_for(url: str, store: SqliteStore) -> None:
    code = "for i in range(10**9):\n put(store, str(i), b'x' * 1000)\n print(i, flush=True)"
    child = in_other_process(url, code)
    assert child.stdout is not None
    seen = [child.stdout.readline() for _ in range(50)]
    os.kill(child.pid, signal.SIGKILL)
    rest, _ = child.communicate()
    confirmed = [int(line) for line in [*seen, *rest.splitlines(keepends=True)] if line.endswith("\n")]
    assert len(confirmed) >= 50
    assert all(get(store, str(number)) == b"x" * 1000 for number in confirmed)
    put(store, "after")
    assert get(store, "after") == b"1"


def test_a_forked_child_and_its_parent_can_both_use_the_store(store: SqliteStore) -> None:
    put(store, "before")
    child = os.fork()
    if child == 0:
        ok = False
        try:
            put(store, "child")
            ok = get(store, "before") == b"1"
        finally:
            os._exit(0 if ok else 1)
    put(store, "parent")
    assert os.waitpid(child, 0)[1] == 0
    assert [get(store, name) for name in ("before", "child", "parent")] == [b"1"] * 3


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # Python 3.12 warns of what is tried here
def test_a_fork_in_the_middle_of_storing_threads_loses_nothing(store: SqliteStore) -> None:
    stop = threading.Event()
    stored: list[str] = []

    def work(number: int) -> None:
        while not stop.is_set():
            name = f"{number}-{len(stored)}"
            put(store, name)
            stored.append(name)

    with ThreadPoolExecutor(4) as pool:
        working = [pool.submit(work, number) for number in range(4)]
        for turn in range(5):
            child = os.fork()
            if child == 0:
                try:
                    put(store, f"child-{turn}")
                    os._exit(0)
                finally:
                    os._exit(1)
            assert os.waitpid(child, 0)[1] == 0
        stop.set()
        for work_ in working:
            work_.result()
    assert all(get(store, name) == b"1" for name in stored)
    assert all(get(store, f"child-{turn}") == b"1" for turn in range(5))


# -- URLs


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("sqlite://results.db", "too few slashes"),
        ("sqlite://u:secret@host/results.db", "too few slashes"),
        ("sqlite://", "does not name a file"),
        ("sqlite:///", "does not name a file"),
        ("sqlite:///:memory:", "does not name a file"),
        ("sqlite:///a%00b", "does not name a file"),
        ("sqlite:///a.db?mode=ro", "no options"),
    ],
)
def test_a_wrong_url_is_refused_with_what_to_write_and_without_a_password(url: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        open_store(url, "shop")
    assert "secret" not in str(caught.value)
    with pytest.raises(ConfigError, match=reason):
        open_store(url, "shop")


def test_a_url_names_a_relative_or_an_absolute_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert path_of("sqlite:///results.db") == tmp_path / "results.db"
    assert path_of("sqlite:////var/lib/my%20results%3F.db") == Path("/var/lib/my results?.db")


def test_checking_a_url_makes_no_file(tmp_path: Path) -> None:
    open_store(f"sqlite:///{tmp_path}/results.db", "shop")
    assert list(tmp_path.iterdir()) == []


def test_a_relative_file_stays_the_same_when_the_folder_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store("sqlite:///results.db", "shop")
    put(store, "a")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert get(store, "a") == b"1"
    store.close()
    assert (tmp_path / "results.db").is_file()


# -- the file


def rows(path: Path) -> int:
    connection = sqlite3.connect(path)
    (count,) = connection.execute("SELECT count(*) FROM result_rows").fetchone()
    connection.close()
    return int(count)


def test_the_file_is_marked_and_has_the_version_of_its_schema(sqlite: SqliteStore, path: Path) -> None:
    put(sqlite, "a")
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA application_id").fetchone() == (0x61775273,)
    assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


EARLIER = [pytest.param(VERSION_2, id="version 2"), pytest.param(VERSION_3, id="version 3")]


@pytest.mark.parametrize("earlier", EARLIER)
def test_a_file_of_an_earlier_version_is_upgraded_at_its_first_use_and_keeps_its_results(
    path: Path, earlier: Path
) -> None:
    shutil.copy(earlier, path)
    known = ("", 0.0) if earlier == VERSION_2 else ("shop.price", 1.5)
    with closing(SqliteStore(path, "shop")) as store, closing(SqliteStore(path, "bank")) as other:
        found = store.get(["done", "failed", "again", "by hand", "never"])
        assert set(found) == {"done", "failed", "again", "by hand"}
        assert found["done"] == ResultRow(
            "done",
            "done",
            known[0],
            b'{"status":"done","value":{"price":1.5}}',
            "2026-11-23T10:00:00.000Z",
            known[1],
            LATER,
        )
        assert found["failed"].state == "failed"
        assert decode_reply(found["failed"].reply).reason == "timeout"
        assert decode_reply(found["again"].reply).value == b"2"
        assert found["by hand"].first_sent == ""
        assert other.get(found) == found, "they had no namespace: any app reads them"
        put(store, "new")
        assert store.expire(2_000_000.0, 10) == 1
    with closing(SqliteStore(path, "shop")) as store:
        assert set(store.get(["done", "failed", "again", "by hand", "new", "expired"])) == {*found, "new"}


def test_a_row_of_an_earlier_version_is_replaced_by_that_of_a_later_message(path: Path) -> None:
    shutil.copy(VERSION_3, path)
    with closing(SqliteStore(path, "shop")) as store:
        later = row("again", b"3", first_sent="2026-11-25T10:00:00.000Z")
        store.put([later, row("done", b"3", first_sent="2026-11-20T10:00:00.000Z")])
        assert store.get(["again"]) == {"again": later}
        assert get(store, "done") != b"3", "that one was sent earlier"
        store.delete(["done", "again"])
        assert store.get(["done", "again"]) == {}


@pytest.mark.parametrize("earlier", EARLIER)
def test_a_process_that_has_the_file_open_during_the_upgrade_can_still_store(path: Path, earlier: Path) -> None:
    shutil.copy(earlier, path)
    with closing(sqlite3.connect(path, isolation_level=None)) as older, closing(SqliteStore(path, "shop")) as store:
        names, values = "task_id, first_sent, result, expires_at", ["", b"1", LATER]
        if earlier == VERSION_3:
            names, values = f"{names}, state, task, stored_at", [*values, "done", "shop.task", 1.5]
        statement = f"INSERT OR REPLACE INTO results ({names}) VALUES ({', '.join('?' * (len(values) + 1))})"
        older.execute(statement, ("before", *values))
        assert get(store, "before") == b"1"
        older.execute(statement, ("after", *values))
        assert get(store, "after") == b"1"
        put(store, "new", b"2")
        read = "SELECT result FROM results WHERE task_id = ? ORDER BY first_sent DESC LIMIT 1"
        assert older.execute(read, ("new",)).fetchone() == (b"2",)


def test_several_processes_upgrade_a_file_at_once(url: str, path: Path) -> None:
    shutil.copy(VERSION_2, path)
    children = [in_other_process(url, f"put(store, '{number}')") for number in range(4)]
    assert [child.wait(60) for child in children] == [0, 0, 0, 0]
    for child in children:
        child.communicate()
    with closing(SqliteStore(path, "shop")) as store:
        assert all(get(store, name) for name in ("done", "0", "1", "2", "3"))


def test_a_file_of_a_newer_version_is_refused(sqlite: SqliteStore, path: Path) -> None:
    put(sqlite, "a")
    sqlite.close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(ConfigError, match=f"version {SCHEMA_VERSION + 1}"):
        sqlite.check_writable()
    with pytest.raises(ConfigError, match=f"version {SCHEMA_VERSION + 1}"):
        get(sqlite, "a")
    with pytest.raises(ResultStoreError, match=f"version {SCHEMA_VERSION + 1}"):
        put(sqlite, "b")


def test_the_database_of_another_program_is_refused_and_not_changed(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE users (name)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="another program"):
        SqliteStore(path, "shop").check_writable()
    assert path.read_bytes() == before


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"the folder {tmp_path}/none does not exist"):
        SqliteStore(tmp_path / "none" / "results.db", "shop").check_writable()


def test_a_folder_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="it is a folder"):
        SqliteStore(tmp_path, "shop").check_writable()


def test_a_file_that_is_not_a_database_is_refused_and_not_changed(path: Path) -> None:
    path.write_bytes(b"these are my notes " * 100)
    with pytest.raises(ConfigError, match="not a SQLite database"):
        SqliteStore(path, "shop").check_writable()
    assert path.read_bytes() == b"these are my notes " * 100


def test_a_damaged_file_is_reported_and_does_not_keep_the_store_from_being_opened(
    sqlite: SqliteStore, path: Path
) -> None:
    for number in range(200):
        put(sqlite, str(number), b"x" * 500)
    sqlite.close()
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)
    damaged = SqliteStore(path, "shop")
    with pytest.raises(ResultStoreError, match="damaged"):
        get(damaged, "7")
    with pytest.raises(ResultStoreError, match="damaged"):
        put(damaged, "7")
    damaged.close()


def test_a_file_locked_by_another_program_is_reported_in_bounded_time_and_works_afterwards(
    sqlite: SqliteStore, path: Path
) -> None:
    put(sqlite, "a")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(ResultStoreError, match="keeps the file locked"):
        put(sqlite, "b")
    assert get(sqlite, "a") == b"1", "reading does not wait for a writer"
    other.execute("COMMIT")
    other.close()
    put(sqlite, "b")
    assert get(sqlite, "b") == b"1"


def test_results_stored_at_once_fail_each_for_itself(sqlite: SqliteStore, path: Path) -> None:
    """A result that no file takes (here: no expiry) is refused alone, although it shared its commit with others."""
    other = sqlite3.connect(path, isolation_level=None)
    good = SqliteStore(path, "shop", lock_timeout=10)
    other.execute("BEGIN IMMEDIATE")
    with ThreadPoolExecutor(5) as pool:
        first = pool.submit(put, good, "first")
        bad = pool.submit(good.put, [row("bad", expires_at=float("nan")), row("beside it")])
        rest = [pool.submit(put, good, str(number)) for number in range(3)]
        while len(good._waiting) < 5:
            assert not first.done()
        other.execute("COMMIT")
        failed = bad.result(10)
        assert list(failed) == ["bad"]
        assert "NOT NULL" in str(failed["bad"])
        for stored in [first, *rest]:
            stored.result(10)
    assert [get(good, name) for name in ("first", "bad", "beside it", "0", "1", "2")] == [b"1", None, *[b"1"] * 4]
    good.close()
    other.close()


def test_a_file_that_was_removed_is_created_again(sqlite: SqliteStore, path: Path) -> None:
    put(sqlite, "a")
    for file in path.parent.iterdir():
        file.unlink()
    assert get(sqlite, "a") is None
    put(sqlite, "b")
    assert get(sqlite, "b") == b"1"
    assert rows(path) == 1


def test_a_read_only_file_is_reported(sqlite: SqliteStore, path: Path, tmp_path: Path) -> None:
    put(sqlite, "a")
    sqlite.close()
    code = f"""
import os, pathlib
from amqpworker.errors import AmqpWorkerError
from amqpworker.results.sqlite import SqliteStore
from tests.unit.results.rows import put
if os.getuid() == 0:
    os.setgid(65534); os.setuid(65534)
try:
    put(SqliteStore(pathlib.Path({str(path)!r}), "shop"), "b")
except AmqpWorkerError as error:
    print(error)
"""
    for folder in [tmp_path, *list(tmp_path.parents)[:2]]:
        folder.chmod(0o755)
    path.chmod(0o444)
    tmp_path.chmod(0o555)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    tmp_path.chmod(0o755)
    assert "Traceback" not in done.stderr
    assert "writable" in done.stdout or "read-only" in done.stdout


def test_a_worker_whose_results_this_user_may_not_store_does_not_start() -> None:
    # Not in pytest's folder, which another run of pytest closes to other users when it starts.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "results.db")
        store = SqliteStore(path, "shop", lock_timeout=0.05)
        store.check_writable()
        put(store, "a")
        store.close()
        code = f"""
import os, pathlib
from amqpworker import App
from amqpworker.errors import ConfigError
from amqpworker.worker.options import WorkerOptions
from amqpworker.worker.assembly import assemble
app = App(results={f"sqlite:///{path}"!r})
if os.getuid() == 0:
    os.setgid(65534); os.setuid(65534)
try:
    assemble(app, WorkerOptions(app="tests:app"))
except ConfigError as error:
    print(error)
"""
        Path(folder).chmod(0o777)
        path.chmod(0o444)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == f"Results cannot be stored in {path}: the file or its folder is read-only.\n", done.stderr


def test_a_file_that_another_process_writes_to_counts_as_writable(path: Path) -> None:
    store = SqliteStore(path, "shop", lock_timeout=0.0)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        store.check_writable()
    store.close()


def test_a_file_that_is_locked_when_it_is_opened_is_used_once_it_is_free(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        store = SqliteStore(path, "shop", lock_timeout=0.0)
        store.check_writable()
        with pytest.raises(ResultStoreError, match="locked"):
            put(store, "a")
    put(store, "a")
    assert get(store, "a") == b"1"
    store.close()


def test_a_worker_starts_without_space_for_its_results_and_stores_them_once_there_is_some(path: Path) -> None:
    code = f"""
import pathlib, resource
from amqpworker.errors import ResultStoreError
from amqpworker.results.sqlite import SqliteStore
from tests.unit.results.rows import get, put
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
store = SqliteStore(pathlib.Path({str(path)!r}), "shop")
store.check_writable()
try:
    put(store, "a")
except ResultStoreError as error:
    print("not stored")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
put(store, "a")
print(get(store, "a"))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "not stored\nb'1'\n", done.stderr


def test_what_cannot_be_opened_now_is_distinguished_from_what_never_can(path: Path, tmp_path: Path) -> None:
    error = sqlite3.OperationalError("unable to open database file")
    error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
    assert not is_permanent(error, path), "too many files may be open"
    assert is_permanent(error, tmp_path / "none" / "a.db"), "it has no folder"


def test_a_folder_without_permission_is_reported(tmp_path: Path) -> None:
    code = f"""
import os, pathlib
from amqpworker.errors import ConfigError
from amqpworker.results.sqlite import SqliteStore
from tests.unit.results.rows import put
if os.getuid() == 0:
    os.setgid(65534); os.setuid(65534)
try:
    SqliteStore(pathlib.Path({str(tmp_path / "private" / "results.db")!r}), "shop").check_writable()
except ConfigError as error:
    print(error)
"""
    for folder in [tmp_path, *list(tmp_path.parents)[:2]]:
        folder.chmod(0o755)
    (tmp_path / "private").mkdir(mode=0o000)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.endswith(f"results.db: this user may not enter {tmp_path}/private.\n"), done.stderr


def test_an_interrupt_while_storing_is_passed_on_and_counts_as_not_stored(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("amqpworker.results.sqlite._Batch.write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        put(sqlite, "a")
    monkeypatch.undo()
    assert get(sqlite, "a") is None
    put(sqlite, "a")
    assert get(sqlite, "a") == b"1"


def test_a_fork_that_was_not_announced_leaves_the_inherited_connection_untouched_and_refuses_to_be_used(
    sqlite: SqliteStore,
) -> None:
    """SQLite would use locks that only the parent has: what the child stores could be lost when the parent ends."""
    put(sqlite, "a")
    inherited = sqlite._writer._connection
    assert inherited is not None
    sqlite._writer.start_anew()
    with pytest.raises(ResultStoreError, match="was forked while its parent had the file open"):
        put(sqlite, "b")
    assert inherited.execute("SELECT count(*) FROM result_rows").fetchone() == (1,), "it was not closed"


def test_the_latest_rows_are_listed_without_replies_and_without_rows_about_others(store: SqliteStore) -> None:
    assert isinstance(store, RowListing)
    check_listing(store, SqliteStore(store.path, "other"))
