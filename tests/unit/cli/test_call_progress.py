"""What `call --progress` shows, and what it needs."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from amqpworker import App
from amqpworker.cli import call_progress
from amqpworker.cli.call_progress import showing_progress, shown
from amqpworker.errors import ConfigError
from amqpworker.model.message import Message
from amqpworker.model.message_status import Status
from amqpworker.model.progress import Progress
from amqpworker.results.row import ResultRow
from amqpworker.testing import wait_until

MESSAGE: Message[Any] = Message("build", "work", b"{}", "id-1")


def test_the_state_is_shown_until_the_task_has_reported_something() -> None:
    assert shown(Status(state="pending")) == {"description": "waits"}
    assert shown(Status(state="running")) == {"description": "running"}
    found = shown(Status(state="running", progress=Progress(1, 4, "a\x1b[31mb")))
    assert (found["completed"], found["total"]) == (1, 4)
    assert "\x1b" not in found["description"]
    assert shown(Status(state="running", progress=Progress(1)))["description"] == "running"


def test_an_app_without_a_store_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(ConfigError, match="--progress"), showing_progress(App("amqp://localhost/"), MESSAGE):
        raise AssertionError


def test_a_task_that_stores_nothing_is_refused_before_anything_is_sent() -> None:
    app = App("amqp://localhost/", results="sqlite:///never.db")
    app.task(name="build", queue="work", result=False)(lambda: None)
    with pytest.raises(ConfigError, match="build stores nothing"), showing_progress(app, MESSAGE):
        raise AssertionError


def test_a_store_that_cannot_be_read_is_named_in_the_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen, shown_text = Console(file=io.StringIO(), force_terminal=True, width=100), call_progress.UNREADABLE
    monkeypatch.setattr(call_progress, "console", lambda **_: screen)
    app = App("amqp://localhost/", results=f"sqlite:///{tmp_path}/no-such-folder/results.db")
    with showing_progress(app, MESSAGE):
        wait_until(lambda: shown_text in screen.file.getvalue())  # type: ignore[attr-defined]
    app.close()


def test_a_terminal_gets_a_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=100)
    drawn = threading.Event()
    known = call_progress.shown

    def noting(status: Status) -> dict[str, Any]:
        drawn.set()
        return known(status)

    monkeypatch.setattr(call_progress, "console", lambda **_: screen)
    monkeypatch.setattr(call_progress, "shown", noting)
    app = App("amqp://localhost/", results=f"sqlite:///{tmp_path}/results.db")
    store = app.store()
    assert store is not None
    progress = b'{"done": 1, "total": 4, "note": "importing"}'
    store.put([ResultRow("id-1", "running", "build", b"", "", 1.0, 4e9, progress=progress)])
    with showing_progress(app, MESSAGE):
        assert drawn.wait(10)
    assert "importing" in screen.file.getvalue()  # type: ignore[attr-defined]
    app.close()
