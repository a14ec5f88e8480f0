"""Which store a URL names, the store of docs/results.md, registered as another package would, and writing into stores."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from amqpworker.errors import ConfigError
from amqpworker.results.expiry import EXPIRE_AFTER
from amqpworker.results.result_writer import ResultWriter
from amqpworker.results.row import ResultRow
from amqpworker.results.sqlite import SqliteStore
from amqpworker.results.store import ENTRY_POINTS, ResultStore, open_store
from amqpworker.testing import ResultStoreContract
from tests.docs import ROOT, blocks

PAGE = ROOT / "docs" / "results.md"


def example(name: str) -> str:
    """Return the block of the page that begins with the name of a file."""
    (block,) = [block for block in blocks(PAGE, "python") if block.startswith(f"# {name}\n")]
    return block


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install the package of the page, as far as Python's metadata knows."""
    (declared,) = blocks(PAGE, "toml")
    points = tomllib.loads(declared)["project"]["entry-points"]
    info = tmp_path / "memory_results-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: memory-results\nVersion: 1.0\n")
    lines = [f"[{group}]\n{name} = {value}\n" for group, named in points.items() for name, value in named.items()]
    (info / "entry_points.txt").write_text("".join([*lines, "lost = not_there:Store\n"]))
    (tmp_path / "memory_results.py").write_text(example("memory_results.py"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "memory_results", raising=False)
    return tmp_path


class TestRegisteredStore(ResultStoreContract):
    @pytest.fixture(autouse=True)
    def _package(self, package: Path) -> None:
        self.url = f"memory://{package}"

    def open_store(self, namespace: str) -> ResultStore:
        return open_store(self.url, namespace)


def test_the_page_shows_how_to_run_the_contract(package: Path) -> None:
    (package / "test_memory_results.py").write_text(example("test_memory_results.py"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_memory_results.py"]
    done = subprocess.run(command, cwd=package, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout


def test_a_path_is_refused_as_a_store(tmp_path: Path) -> None:
    wrong: Any = tmp_path / "results.db"
    with pytest.raises(
        ConfigError, match=r"^App\(results=…\): it must be a URL such as 'sqlite:///results.db', got PosixPath"
    ):
        open_store(wrong, "shop")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("results.db", "is not a URL, such as sqlite:///results.db"),
        ("", "is not a URL"),
        ("mongo://u:secret@h/", "unknown store 'mongo'. Known stores: lost, memory, "),
        ("lost://u:secret@h/", "not_there:Store cannot be imported"),
    ],
)
def test_an_unknown_store_is_refused_with_those_that_are_known_and_without_a_password(
    package: Path, url: str, reason: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        open_store(url, "shop")
    assert reason in str(caught.value)
    assert "secret" not in str(caught.value)
    with pytest.raises(ConfigError):
        open_store(url, "shop")


def test_a_store_of_another_package_gets_declare_if_it_takes_it(package: Path) -> None:
    (package / "not_there.py").write_text("def Store(url, namespace, *, declare): return (url, namespace, declare)\n")
    try:
        assert open_store("lost://h", "shop", declare=False) == ("lost://h", "shop", False)
        assert open_store("memory://h", "shop", declare=False).get(["a"]) == {}
    finally:
        sys.modules.pop("not_there", None)


def test_a_scheme_of_ours_needs_no_entry_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "importlib.metadata", raising=False)
    assert isinstance(open_store(f"sqlite:///{tmp_path}/results.db", "shop"), SqliteStore)
    assert "importlib.metadata" not in sys.modules
    assert list(tmp_path.iterdir()) == [], "it is opened at its first use"
    assert ENTRY_POINTS == "amqpworker.results"


# what writes results


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
    store = SqliteStore(path, "shop", lock_timeout=0.05)
    yield store
    store.close()


def write(writer: ResultWriter, task_id: str) -> None:
    assert writer.write(task_id, "done", "shop.task", b"1", "") is None


def rows(path: Path) -> int:
    connection = sqlite3.connect(path)
    (count,) = connection.execute("SELECT count(*) FROM result_rows").fetchone()
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
        clock.now += 0.01
    clock.now += 11
    left = []
    for number in range(512):
        write(writer, f"new-{number}")
        clock.now += 0.01
        left.append(rows(path) - number - 1)
    assert left[-1] == 0
    assert max(before - after for before, after in zip([600, *left], left, strict=False)) <= 2 * (EXPIRE_AFTER + 1)


def test_a_process_that_stores_little_deletes_expired_results_too(path: Path, clock: Clock) -> None:
    for number in range(3):
        store = SqliteStore(path, "shop")
        write(ResultWriter(store, 1, clock), str(number))
        store.close()
        clock.now += 10
    assert rows(path) == 1
