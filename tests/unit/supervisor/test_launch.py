"""How the command line becomes the supervisor: what is handed over, what it loads, and that no signal is lost between."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from amqpworker.cli.pool_file import pool_spec
from amqpworker.errors import ConfigError
from amqpworker.supervisor import launch
from amqpworker.supervisor.launch import SIGNALS, SupervisorConfig, command, parse_config
from amqpworker.worker.options import WorkerOptions


def config(*apps: str, health: str | None = None, log_json: bool | None = True) -> SupervisorConfig:
    pools = tuple(
        pool_spec(f"pool {number}", WorkerOptions.model_validate({"app": app, "processes": 1, "queues": ["a"]}))
        for number, app in enumerate(apps)
    )
    return SupervisorConfig(pools, health, "critical", log_json)


TWO_POOLS = config("none:app", "mail:app", health="127.0.0.1:8080")


def test_a_supervisor_reads_what_it_was_given() -> None:
    assert parse_config(command(TWO_POOLS)[-1]) == TWO_POOLS


def test_the_owner_of_a_supervisor_is_listed_before_the_details() -> None:
    assert command(TWO_POOLS)[-4:-1] == ["amqpworker.supervisor", "mail:app", "none:app"]


@pytest.mark.parametrize("executable", ["", "/not/there"])
def test_a_program_that_cannot_be_started_is_reported_and_signals_work_as_before(
    monkeypatch: pytest.MonkeyPatch, executable: str
) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with pytest.raises(ConfigError, match=f"supervisor cannot be started as '{executable}': "):
        launch.launch(TWO_POOLS)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


def test_more_pools_than_a_command_can_hold_are_reported() -> None:
    many = config(*["none:app"] * 20_000)
    with pytest.raises(ConfigError, match="Argument list too long"):
        launch.launch(many)


LAUNCH = """
import os, signal, sys
from amqpworker.cli.pool_file import pool_spec
from amqpworker.supervisor import launch
from amqpworker.worker.options import WorkerOptions

signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
execv = os.execv

def interrupted(*command):
    os.kill(os.getpid(), int(sys.argv[1]))
    execv(*command)

if len(sys.argv) > 1:
    os.execv = interrupted
options = WorkerOptions(app="none:app", processes=1, log_json=True)
launch.launch(launch.SupervisorConfig((pool_spec("main", options),), None, "info", True))
"""


def launched(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Become a supervisor in a folder whose modules are named like those that it needs."""
    for name in ("json", "signal", "logging", "select", "subprocess"):
        (folder / f"{name}.py").write_text("raise SystemExit('a module of the folder')\n")
    return subprocess.run(
        # The first program is not to find them either.
        [sys.executable, "-P", "-c", LAUNCH, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_between_the_two_programs_stops_the_pool_in_good_order(tmp_path: Path, number: signal.Signals) -> None:
    done = launched(tmp_path, str(int(number)))
    assert done.returncode == 0, done.stderr
    stopping, stopped = (json.loads(line) for line in done.stderr.splitlines())
    assert (stopping["event"], stopping["reason"]) == ("supervisor_stopping", f"signal {number.name}")
    assert stopped["event"] == "supervisor_stopped"


def test_modules_of_the_current_folder_take_the_place_of_none_that_the_supervisor_needs(tmp_path: Path) -> None:
    assert launched(tmp_path, str(int(signal.SIGTERM))).returncode == 0


def test_all_signals_that_a_supervisor_acts_on_are_held_up() -> None:
    assert {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD} <= set(SIGNALS)


RUN = """
import sys
from amqpworker.supervisor import fleet
from amqpworker.supervisor.__main__ import main

fleet.MAX_DEATHS = 1
code = main(sys.argv[1:])
loaded = {"aio_pika", "pika", "pydantic", "pydantic_settings", "rich", "structlog", "tenacity", "typer", "asyncio"} & {*sys.modules}
print(code, sorted(loaded))
"""


@pytest.mark.parametrize("log_json", [True, None])
@pytest.mark.parametrize(
    ("source", "code", "told"),
    [
        (None, 2, "There is no module 'deadly'"),
        ("import os; os._exit(1)", 1, "No process has ever consumed, and 1 have ended, the last by exit code 1"),
    ],
)
def test_it_gives_the_reason_in_one_line_if_nothing_runs_and_has_loaded_no_broker_checks_or_colours(
    tmp_path: Path, source: str | None, code: int, told: str, log_json: bool | None
) -> None:
    if source is not None:
        (tmp_path / "deadly.py").write_text(source)
    given = config("deadly:app", health="127.0.0.1:0", log_json=log_json)
    done = subprocess.run(
        [sys.executable, "-c", RUN, *command(given)[-2:]], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout == f"{code} []\n", done.stderr
    (line,) = done.stderr.splitlines()
    if log_json:
        fields = json.loads(line)
        assert (fields["event"], fields["code"]) == ("start_failed", code)
        assert fields["reason"].startswith(told)
    else:
        assert line.startswith(f"amqpworker: {told}")


def test_a_defect_of_the_supervisor_is_a_line_of_the_log(tmp_path: Path) -> None:
    given = config("deadly:app")
    broken = "from amqpworker.supervisor.supervisor import Supervisor; Supervisor.run = lambda _: 1 / 0;"
    run = "import sys; from amqpworker.supervisor.__main__ import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", broken + run, *command(given)[-2:]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    line = json.loads(done.stderr)
    assert (line["level"], line["event"]) == ("critical", "program_failed")
    assert "ZeroDivisionError" in line["exception"]
