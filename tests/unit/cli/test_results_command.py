"""`amqpworker results` with a store in a file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from amqpworker.results.row import RECORD, ResultRow, record_id
from amqpworker.results.sqlite import SqliteStore
from tests.cli import Ended, run_here

APP = """
from amqpworker import App
app = App("amqp://127.0.0.1:1/", results="sqlite:///results.db")
none = App("amqp://127.0.0.1:1/")
"""
LATER = 4_000_000_000.0
ROW = ResultRow("report-7", "failed", "shop.report", b'{"status":"failed"}', "2026-03-01T08:00:00.000Z", 1.8e9, LATER)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], Ended]:
    (tmp_path / "resultshop.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "resultshop", raising=False)
    monkeypatch.setenv("AMQPWORKER_APP", "resultshop:app")
    return lambda line: run_here(capsys, *line.split())


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(tmp_path / "results.db", "amqpworker")) as store:
        assert store.put([ROW, ROW._replace(id="other"), ROW._replace(id="old", expires_at=1.0)]) == {}
        yield store


def test_what_is_stored_of_a_message_is_shown(cli: Callable[[str], Ended], store: SqliteStore) -> None:
    shown = cli("results show report-7")
    assert shown.code == 0
    assert "state:       failed\ntask:        shop.report\nattempt:     -\n" in shown.out
    assert "expires:     2096-10-02T07:06:40.000Z" in shown.out
    assert cli("results show report-7 --json").json == [
        {
            "id": "report-7",
            "state": "failed",
            "task": "shop.report",
            "attempt": None,
            "worker": None,
            "sent": "2026-03-01T08:00:00.000Z",
            "started": None,
            "stored": "2027-01-15T08:00:00.000Z",
            "expires": "2096-10-02T07:06:40.000Z",
            "progress": None,
            "reply": {"status": "failed"},
        }
    ]


def test_progress_is_json_and_what_is_not_is_text(cli: Callable[[str], Ended], store: SqliteStore) -> None:
    store.put([ROW._replace(id="odd", progress=b'{"done":1}', reply=b"\xff")])
    (shown,) = cli("results show odd --json").json
    assert (shown["progress"], shown["reply"]) == ({"done": 1}, "\\xff")


@pytest.mark.parametrize("task_id", ["never", "old"])
def test_a_result_that_is_missing_or_has_expired_is_not_shown(
    cli: Callable[[str], Ended], store: SqliteStore, task_id: str
) -> None:
    assert cli(f"results show {task_id} --json").json == []
    ended = cli(f"results show {task_id}")
    assert (ended.code, "Nothing is stored" in ended.out) == (1, True)


def test_one_result_is_deleted_at_once_and_several_only_by_agreement(
    cli: Callable[[str], Ended], store: SqliteStore
) -> None:
    refused = cli("results delete report-7 other")
    assert (refused.code, "Delete the results of 2 messages?" in refused.complaint()) == (2, True)
    assert set(store.get(["report-7", "other"])) == {"report-7", "other"}
    assert cli("results delete report-7").out == "report-7: deleted\n"
    assert cli("results delete report-7 other --yes --json").json == [
        {"id": "report-7", "deleted": False},
        {"id": "other", "deleted": True},
    ]
    assert store.get(["report-7", "other"]) == {}


def test_what_an_integration_keeps_of_a_message_is_deleted_with_it(
    cli: Callable[[str], Ended], store: SqliteStore
) -> None:
    kept = [ROW._replace(id=record_id(one), state=RECORD) for one in ("report-7", "sent", "stays")]
    assert store.put(kept) == {}
    assert "state:       record\n" in cli("results show aw-record:stays").out
    assert cli("results delete report-7 sent never --yes --json").json == [
        {"id": "report-7", "deleted": True},
        {"id": "sent", "deleted": True},
        {"id": "never", "deleted": False},
    ]
    assert set(store.get([row.id for row in kept])) == {"aw-record:stays"}


def test_expired_results_are_deleted(cli: Callable[[str], Ended], store: SqliteStore) -> None:
    store.put([ROW._replace(id=str(number), expires_at=2.0) for number in range(1500)])
    assert cli("results expire").out == "1501 deleted.\n"
    assert cli("results expire --json").json == {"deleted": 0}


def test_expired_results_of_another_namespace_are_deleted_too_and_only_those(
    cli: Callable[[str], Ended], tmp_path: Path, store: SqliteStore
) -> None:
    with closing(SqliteStore(tmp_path / "results.db", "billing")) as other:
        assert other.put([ROW, ROW._replace(id="old", expires_at=1.0)]) == {}
        assert cli("results expire").out == "2 deleted.\n"
        assert other.get(["report-7", "old"]).keys() == {"report-7"}
    assert "other namespaces" in cli("results expire --help").out
    assert set(store.get(["report-7", "old"])) == {"report-7"}


def test_a_store_is_prepared(cli: Callable[[str], Ended], tmp_path: Path) -> None:
    assert cli("results init").out == "The result store is ready.\n"
    assert (tmp_path / "results.db").exists()


def test_mistakes_are_one_line(cli: Callable[[str], Ended], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "store needs no SQL" in cli("results show-sql").complaint()
    assert cli("results show a --app resultshop:none").complaint().startswith("resultshop:none has no result store")
    (tmp_path / "results.db").write_text("not a database at all, whatever its name is")
    broken = cli("results init")
    assert (broken.code, "not a SQLite database" in broken.complaint()) == (2, True)
    monkeypatch.delenv("AMQPWORKER_APP")
    assert "--app MODULE:APP" in cli("results expire").complaint()
    assert "CREATE TABLE amqpworker_results" in cli("results show-sql").out
