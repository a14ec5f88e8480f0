"""The modules of docs/migrating.md: those after a migration do what those before did."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from amqpworker import TaskFailed
from amqpworker.testing import running_worker
from tests.docs import ROOT, blocks
from tests.support import Broker, wait_until

PAGE = ROOT / "docs/migrating.md"
MODULES = {block.partition("\n")[0].removeprefix("# "): block for block in blocks(PAGE, "python")}

Import = Callable[[str], Any]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vhost: Broker) -> Iterator[Import]:
    """Import a module of the page, as it is after the migration."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("AMQPWORKER_URL", vhost.url)
    imported: list[str] = []

    def load(name: str) -> Any:
        (tmp_path / f"{name}.py").write_text(MODULES[f"After: {name}.py"])
        imported.append(name)
        return importlib.import_module(name)

    yield load
    for name in imported:
        del sys.modules[name]


def test_each_module_is_shown_before_and_after() -> None:
    labelled = {name for name in MODULES if name.startswith(("Before: ", "After: "))}
    assert labelled == {f"{when}: {name}.py" for when in ("Before", "After") for name in ("orders", "pictures")}


@pytest.mark.filterwarnings("ignore:The 'initial' parameter:DeprecationWarning")  # of tenacity
def test_the_module_that_was_celery_s(module: Import, vhost: Broker, caplog: pytest.LogCaptureFixture) -> None:
    orders = module("orders")
    caplog.set_level(logging.INFO, "orders")
    with orders.app, running_worker(orders.app, threads=4):
        shipped, late, never = (orders.checkout(f"o-{n}", cents) for n, cents in ((1, 990), (2, 500_000), (3, 50)))
        assert shipped.result() == "shipped o-1"
        assert late.result() == "shipped o-2"
        with pytest.raises(TaskFailed, match="CarrierBusy: o-3") as failed:
            never.result(timeout=20)
        assert failed.value.reason == "failed"
        vhost.wait_for_count("payments.dead", 1)
        refused = vhost.wait_for_message("payments.dead")
        wait_until(lambda: caplog.text.count("receipt for") == 2)
    assert refused.headers["aw-error-type"] == "orders.CardRefused"
    assert "aw-attempt" not in refused.headers
    assert caplog.text.count("call the carrier about o-3") == 1
    assert "receipt for o-1: 990 cents" in caplog.text
    assert [str(schedule) for schedule in orders.app.schedules.values()] == [
        "closing: orders.close, 0 22 * * * Europe/Paris"
    ]


def test_the_module_that_was_dramatiq_s(module: Import, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = module("pictures")
    with pictures.app, running_worker(pictures.app, threads=2):
        assert pictures.upload("cat.png") == ["cat.png at 200", "cat.png at 400"]
        wait_until(lambda: pictures.runs == 5, what="the published and the large one")
        sent = pictures.shrink.send("cat.bmp", 100)
        with pytest.raises(TaskFailed, match="BadPicture"):
            sent.result()
        wait_until(lambda: pictures.reported == [(sent.id, "pictures.BadPicture")])
    assert "cat.png at 100" in capsys.readouterr().out
