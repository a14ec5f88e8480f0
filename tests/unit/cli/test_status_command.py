"""How pools of the same name are distinguished."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest

from amqpworker.cli.main import main
from amqpworker.cli.output import console
from amqpworker.cli.pool_file import pool_spec
from amqpworker.cli.status_command import running_table, status_tables
from amqpworker.supervisor import sockets
from amqpworker.supervisor.health import HealthServer, respond_to
from amqpworker.supervisor.monitor import Monitor
from amqpworker.supervisor.status import PoolView, SupervisorStatus
from amqpworker.worker.options import WorkerOptions
from tests.unit.supervisor.test_health import STATE

APPS = [f"{name}.tasks:app" for name in ("billing", "mail", "reports", "shop")]


@pytest.fixture
def four(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Four supervisors on this host, each with a pool `main`."""
    monkeypatch.setattr(sockets, "SHARED", tmp_path / "nowhere")
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    with ExitStack() as running:
        for number, app in enumerate(APPS):
            state = replace(STATE, pid=4711 + number, pools=(PoolView("main", 1, 1, app),))

            def current(state: SupervisorStatus = state) -> SupervisorStatus:
                return replace(state, at=time.time())

            where = sockets.socket_folder() / f"{4711 + number}.sock"
            running.enter_context(closing(HealthServer(str(where), current)))
        yield


@pytest.mark.usefixtures("four")
def test_pools_of_one_name_are_distinguished_by_their_apps(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["workers"]) == 0
    listed = capsys.readouterr().out
    assert main(["status", "4713"]) == 0
    shown = capsys.readouterr().out
    assert main(["status"]) == 2
    refused = capsys.readouterr().err
    for number, app in enumerate(APPS):
        (line,) = [line for line in listed.splitlines() if line.startswith(str(4711 + number))]
        assert f"main ({app})" in line
        assert f"{4711 + number} ({app})" in " ".join(refused.split())
    assert "main (reports.tasks:app): 1/1 consuming" in shown


def test_a_supervisor_knows_the_app_of_each_of_its_pools() -> None:
    pools = {name: pool_spec(name, WorkerOptions(app=f"{name}:app", processes=1)) for name in ("mail", "shop")}
    assert Monitor(pools, 0.0).history.apps == {"mail": "mail:app", "shop": "shop:app"}


def test_the_id_of_a_task_that_runs_is_on_one_line_of_a_narrow_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    run = {"task": "shop.tasks.send_welcome", "key": "01a2267a-cb21-7dd7-92ae-8c2f0735bf04", "attempt": 1}
    run |= {"started": 990.0, "limit": 1020.0, "over": 0.0}
    console().print(running_table({"at": 1000.0, "processes": [{"pid": 471100, "running": [run]}]}))
    lines = capsys.readouterr().out.splitlines()
    assert any(run["key"] in line for line in lines)
    assert max(map(len, lines)) <= 80


def test_without_time_limits_the_name_of_a_task_has_their_room(capsys: pytest.CaptureFixture[str]) -> None:
    run = {"task": "shop.stubborn", "key": "01a2267a-cb21-7dd7-92ae-8c2f0735bf04", "attempt": 1, "started": 990.0}
    console().print(running_table({"at": 1000.0, "processes": [{"pid": 4711, "running": [{**run, "limit": None}]}]}))
    shown = capsys.readouterr().out
    assert "shop.stubborn" in shown
    assert "limit" not in shown


def test_the_tasks_that_no_process_knows_are_shown_with_their_messages(capsys: pytest.CaptureFixture[str]) -> None:
    _, state = respond_to("/status", STATE, STATE.at)
    console().print(status_tables(state))
    assert "wait for a worker" not in capsys.readouterr().out
    console().print(status_tables({**state, "unknown": {"shop.send_invoice": 12}}))
    shown = capsys.readouterr().out.splitlines()
    assert "12 messages of task shop.send_invoice wait for a worker that knows it" in shown
    assert shown[-1] == "went wrong"
