"""Tracked, deduplicated and reporting tasks with a real broker and SQLite: what `status()` shows, and what runs."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pika
import pytest

from amqpworker import App, Sent, current
from amqpworker.model.progress import Progress
from tests.support import Broker, raw_channel, wait_until
from tests.workers import running

QUEUE = "work"


@pytest.fixture
def storing(make_app: Callable[..., App], tmp_path: Path) -> App:
    """An app that stores results."""
    return make_app(results=f"sqlite:///{tmp_path}/results.db")


def test_a_tracked_message_is_sent_then_runs_then_is_done(vhost: Broker, storing: App) -> None:
    go, reported = threading.Event(), threading.Event()

    @storing.task(name="import", queue=QUEUE, track=True)
    def import_all() -> int:
        current().progress(1, 4, "first")
        current().progress(2, 4, "second")
        reported.set()
        go.wait(30)
        return 4

    sent = import_all.send()
    (many,) = storing.send_many([import_all.message()])
    awaited = asyncio.run(sent_by_coroutine(storing))
    for one in (sent, many, awaited):
        wait_until(partial(has_state, one, "sent"), 10, "it is sent")
    with running(storing, threads=1):
        assert reported.wait(10)
        wait_until(lambda: sent.status().progress is not None, 10, "it has reported")
        status = sent.status()
        assert (status.state, status.attempt, bool(status.worker)) == ("running", 1, True)
        assert status.started_at is not None
        go.set()
        assert [one.result(timeout=10) for one in (sent, many, awaited)] == [4, 4, 4]
        assert sent.status().progress == Progress(2, 4, "second")
        assert sent.status().state == "done"


async def sent_by_coroutine(app: App) -> Sent[int]:
    return await app.tasks["import"].asend()


def has_state(sent: Sent[int], state: str) -> bool:
    return sent.status().state == state


def test_a_message_whose_task_is_done_does_not_run_again_and_its_caller_gets_the_result(
    vhost: Broker, storing: App
) -> None:
    runs: list[str] = []

    @storing.task(name="pay", queue=QUEUE, dedupe=True, track=True)
    def pay(cents: int) -> int:
        runs.append(current().id)
        return cents

    with running(storing, threads=2):
        assert pay.options(id="order-1").send(5).result(timeout=10) == 5
        assert pay.options(id="order-1", timeout=10).call(6) == 5
        assert pay.options(id="order-1").send(7).result(timeout=10) == 5
        assert pay.options(id="order-2", timeout=10).call(8) == 8
        wait_until(lambda: vhost.count(QUEUE) == 0, 10, "all is taken")
        with raw_channel(vhost.url) as channel:
            properties = pika.BasicProperties(
                type="pay", message_id="order-1", headers={"aw-replayed": "2026-01-01T00:00:00.000Z"}
            )
            channel.basic_publish("amqpworker.tasks", QUEUE, b'{"cents": 9}', properties)
        wait_until(lambda: len(runs) == 3, 10, "what was replayed runs")
    assert runs == ["order-1", "order-2", "order-1"]


APP = """
from amqpworker import App, Sent, current

app = App(results="sqlite:///results.db")

@app.task(name="build", queue="work", isolated=True, result_ttl=60)
def build() -> int:
    for done in range(1, 101):
        current().progress(done, 100)
    return 100
"""


def test_an_isolated_task_reports_and_a_call_with_progress_prints_its_result(
    vhost: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "buildshop.py").write_text(APP)
    environment = {
        **os.environ,
        "AMQPWORKER_URL": vhost.url,
        "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}",
    }
    command = [sys.executable, "-m", "amqpworker"]
    worker = subprocess.Popen(
        [*command, "worker", "buildshop:app", "--threads", "1", "--processes", "1"], cwd=tmp_path, env=environment
    )
    try:
        called = subprocess.run(
            [*command, "call", "build", "--app", "buildshop:app", "--progress", "--timeout", "30", "--id", "build-1"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (called.returncode, json.loads(called.stdout or "null")) == (0, 100), called.stderr
    finally:
        worker.terminate()
        worker.wait(30)
    store = App(results=f"sqlite:///{tmp_path}/results.db").store()
    assert store is not None
    row = store.get(["build-1"])["build-1"]
    assert row.state == "done"
    assert json.loads(row.progress) == {"done": 100, "total": 100, "note": ""}
    assert round(row.expires_at - row.stored_at) == 60
