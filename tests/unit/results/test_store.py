"""Which store a URL names; and the store of docs/results.md, registered as another package would."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from amqpworker.errors import ConfigError
from amqpworker.results.sqlite import SqliteStore
from amqpworker.results.store import ENTRY_POINTS, ResultStore, check_url, open_store
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

    def open_store(self) -> ResultStore:
        return open_store(self.url)


def test_the_page_shows_how_to_run_the_contract(package: Path) -> None:
    (package / "test_memory_results.py").write_text(example("test_memory_results.py"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_memory_results.py"]
    done = subprocess.run(command, cwd=package, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("results.db", "is not a URL, such as sqlite:///results.db"),
        ("", "is not a URL"),
        ("mongo://u:secret@h/", "unknown store 'mongo'. Known stores: lost, memory, sqlite."),
        ("lost://u:secret@h/", "not_there:Store cannot be imported"),
    ],
)
def test_an_unknown_store_is_refused_with_those_that_are_known_and_without_a_password(
    package: Path, url: str, reason: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_url(url)
    assert reason in str(caught.value)
    assert "secret" not in str(caught.value)
    with pytest.raises(ConfigError):
        open_store(url)


def test_a_scheme_of_ours_needs_no_entry_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "importlib.metadata", raising=False)
    assert isinstance(open_store(f"sqlite:///{tmp_path}/results.db"), SqliteStore)
    assert "importlib.metadata" not in sys.modules
    assert list(tmp_path.iterdir()) == [], "it is opened at its first use"
    assert ENTRY_POINTS == "amqpworker.results"
