"""The contract of a result store, asked of each store that there is; then what only a file can suffer."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from amqpworker.errors import ConfigError, ResultStoreError
from amqpworker.results.sqlite import SqliteStore, path_of
from amqpworker.results.sqlite_file import may_pass
from amqpworker.results.store import ResultNotStorable, ResultStore, check_url, open_store

LATER = 4_000_000_000.0


class Clock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty store, one kind after the other."""
    return {"sqlite": f"sqlite:///{tmp_path}/results.db"}[request.param]


@pytest.fixture
def open_one(url: str, clock: Clock) -> Iterator[Callable[[], ResultStore]]:
    opened: list[ResultStore] = []

    def open_() -> ResultStore:
        store = open_store(url, clock)
        assert store is not None
        opened.append(store)
        return store

    yield open_
    for store in opened:
        store.close()


@pytest.fixture
def store(open_one: Callable[[], ResultStore]) -> ResultStore:
    return open_one()


def in_other_process(url: str, code: str) -> subprocess.Popen[str]:
    """Run `code` with an open `store` in a process of its own."""
    start = (
        f"import sys; from amqpworker.results.store import open_store; store = open_store({url!r}); LATER = {LATER}\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", start + code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


# -- the contract


def test_what_was_stored_is_fetched(store: ResultStore) -> None:
    store.store("a", b'{"status":"done","value":1}', LATER)
    assert store.fetch("a") == b'{"status":"done","value":1}'


def test_an_unknown_id_has_no_result(store: ResultStore) -> None:
    assert store.fetch("never") is None


def test_a_later_result_takes_the_place_of_an_earlier_one(store: ResultStore) -> None:
    store.store("a", b"1", LATER)
    store.store("a", b"2", LATER)
    assert store.fetch("a") == b"2"


def test_a_result_of_another_message_with_the_same_id_is_none_of_this_one(store: ResultStore) -> None:
    monday, tuesday = "2026-11-23T10:00:00.000Z", "2026-11-24T10:00:00.000Z"
    store.store("a", b"1", LATER, monday)
    assert store.fetch("a", tuesday) is None
    store.store("a", b"2", LATER, tuesday)
    assert (store.fetch("a", monday), store.fetch("a", tuesday)) == (b"1", b"2")
    store.store("a", b"3", LATER, monday)
    assert (store.fetch("a", monday), store.fetch("a", tuesday)) == (b"3", b"2")
    assert store.fetch("a") == b"3", "the last one of whatever message"


def test_a_result_of_a_message_that_does_not_tell_when_it_was_sent_is_taken(store: ResultStore) -> None:
    store.store("a", b"1", LATER)
    assert store.fetch("a", "2026-11-23T10:00:00.000Z") == b"1"
    store.store("a", b"2", LATER, "2026-11-23T10:00:00.000Z")
    assert store.fetch("a", "2026-11-23T10:00:00.000Z") == b"2", "its own before all others"


def test_a_result_that_can_never_be_stored_is_told_from_a_store_that_is_away(store: ResultStore) -> None:
    with pytest.raises(ResultNotStorable, match="too big"):
        store.store("a", bytes(1_000_000_001), LATER)
    store.store("a", b"1", LATER)
    assert store.fetch("a") == b"1"


@pytest.mark.parametrize("task_id", ["", "a b/ü?*%'\";--", "x\0y", "\ud800", "x" * 10_000])
def test_an_id_is_opaque_text(store: ResultStore, task_id: str) -> None:
    store.store(task_id, b"1", LATER)
    assert store.fetch(task_id) == b"1"
    assert store.fetch(task_id + "x") is None


@pytest.mark.parametrize("result", [b"", b"\0\xff", b"x" * 3_000_000], ids=["empty", "binary", "large"])
def test_a_result_is_opaque_bytes(store: ResultStore, result: bytes) -> None:
    store.store("a", result, LATER)
    assert store.fetch("a") == result


def test_a_result_is_there_until_it_expires_and_not_after(store: ResultStore, clock: Clock) -> None:
    store.store("a", b"1", clock.now + 10)
    clock.now += 9.9
    assert store.fetch("a") == b"1"
    clock.now += 0.1
    assert store.fetch("a") is None


def test_a_result_stored_again_gets_the_new_expiry(store: ResultStore, clock: Clock) -> None:
    store.store("a", b"1", clock.now + 10)
    store.store("a", b"2", clock.now + 100)
    clock.now += 50
    assert store.fetch("a") == b"2"


def test_results_are_there_for_whoever_opens_the_store_next(open_one: Callable[[], ResultStore]) -> None:
    first = open_one()
    first.store("a", b"1", LATER)
    first.close()
    assert open_one().fetch("a") == b"1"


def test_two_stores_see_each_others_results(open_one: Callable[[], ResultStore]) -> None:
    first, second = open_one(), open_one()
    assert second.fetch("a") is None
    first.store("a", b"1", LATER)
    assert second.fetch("a") == b"1"
    second.store("a", b"2", LATER)
    assert first.fetch("a") == b"2"


def test_many_threads_store_and_fetch_at_once(store: ResultStore) -> None:
    def work(number: int) -> None:
        for turn in range(25):
            name = f"{number}-{turn}"
            store.store(name, name.encode(), LATER)
            assert store.fetch(name) == name.encode()

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, range(16)))
    assert all(store.fetch(f"{n}-{t}") == f"{n}-{t}".encode() for n in range(16) for t in range(25))


def test_several_processes_store_at_once_and_nothing_is_lost(url: str, store: ResultStore) -> None:
    code = "for i in range(100): store.store(f'{sys.argv[0]}{NUMBER}-{i}', b'1', LATER)"
    children = [in_other_process(url, f"NUMBER = {number}\n{code}") for number in range(3)]
    for turn in range(100):
        store.store(f"here-{turn}", b"1", LATER)
    assert [child.wait(60) for child in children] == [0, 0, 0]
    for child in children:
        child.communicate()
    assert all(store.fetch(f"-c{number}-{turn}") == b"1" for number in range(3) for turn in range(100))
    assert all(store.fetch(f"here-{turn}") == b"1" for turn in range(100))


def test_several_processes_make_the_store_at_once(url: str) -> None:
    children = [in_other_process(url, f"store.store('{number}', b'1', LATER)") for number in range(4)]
    assert [child.wait(60) for child in children] == [0, 0, 0, 0]
    for child in children:
        child.communicate()
    found = open_store(url)
    assert found is not None
    assert [found.fetch(str(number)) for number in range(4)] == [b"1"] * 4
    found.close()


def test_kill_9_keeps_what_a_store_call_returned_for(url: str, store: ResultStore) -> None:
    code = "for i in range(10**9):\n store.store(str(i), b'x' * 1000, LATER)\n print(i, flush=True)"
    child = in_other_process(url, code)
    assert child.stdout is not None
    seen = [child.stdout.readline() for _ in range(50)]
    os.kill(child.pid, signal.SIGKILL)
    rest, _ = child.communicate()
    confirmed = [int(line) for line in [*seen, *rest.splitlines(keepends=True)] if line.endswith("\n")]
    assert len(confirmed) >= 50
    assert all(store.fetch(str(number)) == b"x" * 1000 for number in confirmed)
    store.store("after", b"1", LATER)
    assert store.fetch("after") == b"1"


def test_a_forked_child_and_its_parent_both_go_on(store: ResultStore) -> None:
    store.store("before", b"1", LATER)
    child = os.fork()
    if child == 0:
        ok = False
        try:
            store.store("child", b"1", LATER)
            ok = store.fetch("before") == b"1"
        finally:
            os._exit(0 if ok else 1)
    store.store("parent", b"1", LATER)
    assert os.waitpid(child, 0)[1] == 0
    assert [store.fetch(name) for name in ("before", "child", "parent")] == [b"1"] * 3


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # Python 3.12 warns of what is tried here
def test_a_fork_in_the_middle_of_storing_threads_loses_nothing(store: ResultStore) -> None:
    stop = threading.Event()
    stored: list[str] = []

    def work(number: int) -> None:
        while not stop.is_set():
            name = f"{number}-{len(stored)}"
            store.store(name, b"1", LATER)
            stored.append(name)

    with ThreadPoolExecutor(4) as pool:
        working = [pool.submit(work, number) for number in range(4)]
        for turn in range(5):
            child = os.fork()
            if child == 0:
                try:
                    store.store(f"child-{turn}", b"1", LATER)
                    os._exit(0)
                finally:
                    os._exit(1)
            assert os.waitpid(child, 0)[1] == 0
        stop.set()
        for work_ in working:
            work_.result()
    assert all(store.fetch(name) == b"1" for name in stored)
    assert all(store.fetch(f"child-{turn}") == b"1" for turn in range(5))


def test_a_closed_store_opens_anew_at_its_next_use(store: ResultStore) -> None:
    store.store("a", b"1", LATER)
    store.close()
    store.close()
    assert store.fetch("a") == b"1"
    store.close()
    store.store("b", b"2", LATER)
    assert store.fetch("b") == b"2"


def test_a_store_can_be_closed_while_threads_are_at_it(store: ResultStore) -> None:
    ended = threading.Event()

    def work(name: str) -> None:
        for turn in range(20):
            store.store(name, str(turn).encode(), LATER)
            assert store.fetch(name) == str(turn).encode()

    def close() -> None:
        while not ended.is_set():
            store.close()

    with ThreadPoolExecutor(5) as threads:
        closing = threads.submit(close)
        working = [threads.submit(work, str(number)) for number in range(4)]
        try:
            for one in working:
                one.result(60)
        finally:
            ended.set()
        closing.result(10)


# -- URLs


def test_no_url_is_no_store() -> None:
    assert open_store(None) is None


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("results.db", "not a URL"),
        ("", "not a URL"),
        ("mongo://u:secret@h/", r"no store named 'mongo'; there are: sqlite \(sqlite:///results.db\)"),
        ("sqlite://results.db", "too few slashes"),
        ("sqlite://u:secret@host/results.db", "too few slashes"),
        ("sqlite://", "names no file"),
        ("sqlite:///", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite:///a%00b", "names no file"),
        ("sqlite:///a.db?mode=ro", "no options"),
    ],
)
def test_a_wrong_url_is_told_with_what_to_write_and_without_a_password(url: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        check_url(url)
    assert "secret" not in str(caught.value)
    with pytest.raises(ConfigError, match=told):
        open_store(url)


def test_a_url_names_a_relative_or_an_absolute_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert path_of("sqlite:///results.db") == tmp_path / "results.db"
    assert path_of("sqlite:////var/lib/my%20results%3F.db") == Path("/var/lib/my results?.db")


def test_checking_a_url_makes_no_file(tmp_path: Path) -> None:
    check_url(f"sqlite:///{tmp_path}/results.db")
    assert list(tmp_path.iterdir()) == []


def test_a_relative_file_stays_the_same_when_the_folder_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store("sqlite:///results.db")
    assert store is not None
    store.store("a", b"1", LATER)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert store.fetch("a") == b"1"
    store.close()
    assert (tmp_path / "results.db").is_file()


# -- the SQLite file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.db"


@pytest.fixture
def sqlite(path: Path, clock: Clock) -> Iterator[SqliteStore]:
    store = SqliteStore(path, clock, patience=0.05)
    yield store
    store.close()


def rows(path: Path) -> int:
    connection = sqlite3.connect(path)
    (count,) = connection.execute("SELECT count(*) FROM results").fetchone()
    connection.close()
    return int(count)


def test_expired_results_leave_the_file_a_bounded_number_at_a_time(
    sqlite: SqliteStore, path: Path, clock: Clock
) -> None:
    for number in range(600):
        sqlite.store(f"old-{number}", b"1", clock.now + 10)
    clock.now += 11
    left = []
    for number in range(512):
        sqlite.store(f"new-{number}", b"1", clock.now + 10)
        left.append(rows(path) - number - 1)
    assert left[-1] == 0
    assert max(before - after for before, after in zip([600, *left], left, strict=False)) <= 128


def test_a_process_that_stores_little_purges_too(path: Path, clock: Clock) -> None:
    for number in range(3):
        store = SqliteStore(path, clock)
        store.store(str(number), b"1", clock.now + 1)
        store.close()
        clock.now += 10
    assert rows(path) == 1


def test_the_file_is_marked_and_has_the_version_of_its_schema(sqlite: SqliteStore, path: Path) -> None:
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA application_id").fetchone() == (0x61775273,)
    assert connection.execute("PRAGMA user_version").fetchone() == (2,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_a_file_of_a_newer_version_is_refused(sqlite: SqliteStore, path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 3")
    connection.close()
    with pytest.raises(ConfigError, match="version 3"):
        SqliteStore(path)


def test_the_database_of_something_else_is_refused_and_left_as_it_is(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE users (name)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="something else"):
        SqliteStore(path)
    assert path.read_bytes() == before


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"there is no folder {tmp_path}/none"):
        SqliteStore(tmp_path / "none" / "results.db")


def test_a_folder_in_place_of_the_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="it is a folder"):
        SqliteStore(tmp_path)


def test_a_file_that_is_no_database_is_told_and_left_as_it_is(path: Path) -> None:
    path.write_bytes(b"these are my notes " * 100)
    with pytest.raises(ConfigError, match="not a SQLite database"):
        SqliteStore(path)
    assert path.read_bytes() == b"these are my notes " * 100


def test_a_damaged_file_is_told_and_the_store_goes_on_where_it_can(sqlite: SqliteStore, path: Path) -> None:
    for number in range(200):
        sqlite.store(str(number), b"x" * 500, LATER)
    sqlite.close()
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)
    damaged = SqliteStore(path)
    with pytest.raises(ResultStoreError, match="damaged"):
        damaged.fetch("7")
    with pytest.raises(ResultStoreError, match="damaged"):
        damaged.store("7", b"1", LATER)
    damaged.close()


def test_a_file_locked_by_another_program_is_told_in_bounded_time_and_works_afterwards(
    sqlite: SqliteStore, path: Path
) -> None:
    sqlite.store("a", b"1", LATER)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(ResultStoreError, match="keeps the file locked"):
        sqlite.store("b", b"1", LATER)
    assert sqlite.fetch("a") == b"1", "reading does not wait for a writer"
    other.execute("COMMIT")
    other.close()
    sqlite.store("b", b"1", LATER)
    assert sqlite.fetch("b") == b"1"


def test_results_stored_at_once_fail_each_for_itself(sqlite: SqliteStore, path: Path) -> None:
    """A result that no file takes (here: no expiry) is refused alone, although it shared its commit with others."""
    other = sqlite3.connect(path, isolation_level=None)
    good = SqliteStore(path, patience=10)
    other.execute("BEGIN IMMEDIATE")
    with ThreadPoolExecutor(5) as pool:
        first = pool.submit(good.store, "first", b"1", LATER)
        bad = pool.submit(good.store, "bad", b"1", float("nan"))
        rest = [pool.submit(good.store, str(number), b"1", LATER) for number in range(3)]
        while len(good._waiting) < 4:  # all but the one that holds the lock
            assert not first.done()
        other.execute("COMMIT")
        with pytest.raises(ResultStoreError, match="NOT NULL"):
            bad.result(10)
        for stored in [first, *rest]:
            stored.result(10)
    assert [good.fetch(name) for name in ("first", "bad", "0", "1", "2")] == [b"1", None, b"1", b"1", b"1"]
    good.close()
    other.close()


def test_a_file_that_was_removed_is_made_again(sqlite: SqliteStore, path: Path) -> None:
    sqlite.store("a", b"1", LATER)
    for file in path.parent.iterdir():
        file.unlink()
    assert sqlite.fetch("a") is None
    sqlite.store("b", b"1", LATER)
    assert sqlite.fetch("b") == b"1"
    assert rows(path) == 1


def test_a_read_only_file_is_told(sqlite: SqliteStore, path: Path, tmp_path: Path) -> None:
    sqlite.store("a", b"1", LATER)
    sqlite.close()
    code = f"""
import os, pathlib
from amqpworker.errors import AmqpWorkerError
from amqpworker.results.sqlite import SqliteStore
if os.getuid() == 0:
    os.setgid(65534); os.setuid(65534)
try:
    SqliteStore(pathlib.Path({str(path)!r})).store("b", b"1", {LATER})
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


def test_a_worker_whose_results_this_user_may_not_store_does_not_begin(
    sqlite: SqliteStore, path: Path, tmp_path: Path
) -> None:
    sqlite.check_writable()
    sqlite.store("a", b"1", LATER)
    sqlite.close()
    code = f"""
import os, pathlib
from amqpworker import App
from amqpworker.errors import ConfigError
from amqpworker.worker.options import WorkerOptions
from amqpworker.worker.process import WorkerProcess
app = App(results={f"sqlite:///{path}"!r})
if os.getuid() == 0:
    os.setgid(65534); os.setuid(65534)
try:
    WorkerProcess(app, WorkerOptions(app="tests:app"))
except ConfigError as error:
    print(error)
"""
    for folder in list(tmp_path.parents)[:2]:
        folder.chmod(0o755)
    tmp_path.chmod(0o777)
    path.chmod(0o444)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == f"Results cannot be kept in {path}: the file or its folder is read-only.\n", done.stderr


def test_a_file_that_another_process_writes_to_counts_as_writable(path: Path) -> None:
    store = SqliteStore(path, patience=0.0)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        store.check_writable()
    store.close()


def test_a_file_that_is_locked_when_it_is_opened_is_used_once_it_is_free(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        store = SqliteStore(path, patience=0.0)
        store.check_writable()
        with pytest.raises(ResultStoreError, match="locked"):
            store.store("a", b"1", LATER)
    store.store("a", b"1", LATER)
    assert store.fetch("a") == b"1"
    store.close()


def test_a_worker_begins_though_there_is_no_room_for_its_results_and_stores_them_once_there_is(path: Path) -> None:
    code = f"""
import pathlib, resource
from amqpworker.errors import ResultStoreError
from amqpworker.results.sqlite import SqliteStore
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
store = SqliteStore(pathlib.Path({str(path)!r}))
store.check_writable()
try:
    store.store("a", b"1", {LATER})
except ResultStoreError as error:
    print("not stored")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.store("a", b"1", {LATER})
print(store.fetch("a"))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "not stored\nb'1'\n", done.stderr


@pytest.mark.parametrize("wanting", ["descriptors", "a folder"])
def test_what_cannot_be_opened_now_is_told_from_what_never_can(path: Path, tmp_path: Path, wanting: str) -> None:
    error = sqlite3.OperationalError("unable to open database file")
    error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
    assert may_pass(error, path if wanting == "descriptors" else tmp_path / "none" / "a.db") is (
        wanting == "descriptors"
    )


def test_a_folder_that_may_not_be_entered_is_told(tmp_path: Path) -> None:
    code = f"""
import os, pathlib
from amqpworker.errors import ConfigError
from amqpworker.results.sqlite import SqliteStore
if os.getuid() == 0:
    os.setgid(65534); os.setuid(65534)
try:
    SqliteStore(pathlib.Path({str(tmp_path / "private" / "results.db")!r}))
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

    monkeypatch.setattr(sqlite, "_commit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sqlite.store("a", b"1", LATER)
    monkeypatch.undo()
    assert sqlite.fetch("a") is None
    sqlite.store("a", b"1", LATER)
    assert sqlite.fetch("a") == b"1"


def test_a_fork_that_was_not_announced_leaves_the_inherited_connection_untouched_and_refuses_to_go_on(
    sqlite: SqliteStore,
) -> None:
    """Where SQLite believes in the parent's locks, a result that the child stores would be lost with the parent's end."""
    sqlite.store("a", b"1", LATER)
    inherited = sqlite._writer._connection
    assert inherited is not None
    sqlite._writer.after_in_child()
    with pytest.raises(ResultStoreError, match="was forked while its parent had the file open"):
        sqlite.store("b", b"1", LATER)
    assert inherited.execute("SELECT count(*) FROM results").fetchone() == (1,), "it was not closed"
