"""An app's folder whose modules have the names of the standard library's: what runs there finds the right ones."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli import environment, run
from tests.pools import pool
from tests.support import Broker, wait_until

TRAP = """
import sys
with open({log!r}, "a") as log:
    log.write("{name} is imported in place of the standard library's\\n")
raise ImportError("{name}")
"""
TASKS = """
app.results = {results!r}

@app.task(name="shop.add", queue="work")
def add(a: int, b: int) -> int:
    return a + b

@app.task(name="shop.alone", queue="work", isolated=True)
async def alone(a: int) -> int:
    return a

@app.task(name="shop.fail", queue="work", retry=[0.1])
def fail() -> None:
    raise ValueError("no")
"""
# Python itself needs these before it runs anything.
NEEDED_AT_ONCE = {*sys.builtin_module_names, "os", "__future__", "antigravity", "this", "idlelib"}


@pytest.fixture
def trapped(tmp_path: Path) -> Path:
    """Return a folder with a module for each of the standard library, and the file in which each notes its import."""
    log = tmp_path / "trapped"
    for name in sys.stdlib_module_names - NEEDED_AT_ONCE:
        (tmp_path / f"{name}.py").write_text(TRAP.format(name=name, log=str(log)))
    return log


def test_a_pool_and_its_isolated_processes_run_beside_modules_named_like_any_of_the_standard_library(
    tmp_path: Path, vhost: Broker, trapped: Path
) -> None:
    more = TASKS.format(results=f"sqlite:///{tmp_path}/results.db")
    env = environment(vhost.url, AMQPWORKER_APP="shop:app")
    with pool(tmp_path, vhost.url, "-p", "1", "--log-json", broker=vhost, more=more) as workers:
        workers.wait_for("process_started")
        for command, told in {
            ("call", "shop.add", "a=1", "b=2"): "3",
            ("call", "shop.alone", "a=5"): "5",
            ("send", "shop.fail"): "",
            ("topology", "check"): "all as they should be",
            ("worker", "--check"): "shop:app",
        }.items():
            ended = run(tmp_path, env, *command)
            assert ended.code == 0, ended.err
            assert told in ended.out
        workers.wait_for("task_dead")
        wait_until(lambda: vhost.count("work.dead") == 1)
        ended = run(tmp_path, env, "dead", "list")
        assert "ValueError: no" in ended.out, ended.err
        workers.signal(signal.SIGTERM)
        assert workers.end() == 0
    assert not trapped.exists(), trapped.read_text()


def test_the_program_runs_as_a_module_beside_the_names_that_are_common(tmp_path: Path) -> None:
    log = tmp_path / "trapped"
    for name in ("queue", "signal", "email", "select", "json", "logging", "socket", "calendar", "platform", "secrets"):
        (tmp_path / f"{name}.py").write_text(TRAP.format(name=name, log=str(log)))
    (tmp_path / "plain.py").write_text("from amqpworker import App\napp = App()\napp.task(name='t')(lambda: 1)\n")
    command = [sys.executable, "-m", "amqpworker", "worker", "plain:app", "--check"]
    ended = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert not log.exists(), log.read_text()


def test_an_import_that_meets_the_module_of_the_same_name_is_explained(tmp_path: Path) -> None:
    (tmp_path / "queue.py").write_text("def jobs() -> None: ...\n")
    (tmp_path / "plain.py").write_text("from queue import jobs\nfrom amqpworker import App\napp = App()\n")
    ended = run(tmp_path, environment(), "worker", "plain:app", "--check")
    assert ended.code == 2
    assert "cannot import name 'jobs' from 'queue'" in ended.err
    assert ended.err.endswith(" queue.py is not found, since another module is called 'queue': rename it.\n")
