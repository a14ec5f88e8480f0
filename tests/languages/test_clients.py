"""The clients in `examples/clients`, each as a process, against a worker that runs their task."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.cli import environment, started
from tests.cli import run as run_program
from tests.docs import ROOT, Command, commands
from tests.programs import Program, whole_lines
from tests.support import Broker, wait_until

CLIENTS = ROOT / "examples/clients"
MODULES = ROOT / ".amqpworker/node/node_modules"
WORKER, *RUNS = commands(CLIENTS / "README.md")
DELAY = 1.5
# What the worker imports: the task of the clients, each run of which is a line in a file.
NOTED = """
import json
from contextlib import contextmanager
from tasks import app

@contextmanager
def noted(run):
    delivery = run.delivery
    properties = delivery.properties.present()
    message = {
        "routing_key": delivery.routing_key,
        "headers": properties.pop("headers", {}),
        "properties": properties,
        "body": json.loads(delivery.body),
    }
    with open("runs", "a") as runs:
        runs.write(json.dumps({"at": run.started, "message": message}, default=str) + "\\n")
    yield

app.middleware = (noted,)
"""


@dataclass(frozen=True)
class Scene:
    """A copy of the clients' folder, and a broker with a worker."""

    folder: Path
    broker: Broker
    variables: dict[str, str]

    def runs(self, count: int) -> list[dict[str, Any]]:
        """Return the runs of the worker, once there are `count`."""
        lines = wait_until(
            lambda: found if len(found := whole_lines(self.folder / "runs")) >= count else [], 30, f"{count} runs"
        )
        return [json.loads(line) for line in lines]

    def run(self, command: Command) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command.line,
            shell=True,
            cwd=self.folder,
            env=self.variables,
            text=True,
            capture_output=True,
            timeout=100,
            check=False,
        )


@pytest.fixture
def scene(vhost: Broker, tmp_path: Path) -> Iterator[Scene]:
    folder = tmp_path / "clients"
    shutil.copytree(CLIENTS, folder)
    (folder / "node_modules").symlink_to(MODULES)
    (folder / "noted.py").write_text(NOTED)
    management = vhost.node.management_url.replace("://", "://guest:guest@")
    variables = environment(
        vhost.url,
        AMQPWORKER_MANAGEMENT=management,
        PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        GOCACHE=str(ROOT / ".amqpworker/go-cache"),
    )
    worker = WORKER.line.replace("tasks:app", "noted:app").split()[1:]
    log = tmp_path / "worker.log"
    with (
        log.open("w") as output,
        started(folder, variables, *worker, "--log-json", stdout=output, stderr=output) as pool,
    ):
        program = Program(pool, log)
        program.wait_for("queue_consuming", timeout=60)
        yield Scene(folder, vhost, variables)
        pool.terminate()
        assert program.end(60) == 0, program.log


@pytest.mark.parametrize("command", RUNS, ids=lambda command: command.line.split()[-1])
def test_a_client_prints_what_its_page_shows_and_the_worker_has_run_all_that_it_sent(
    scene: Scene, command: Command
) -> None:
    began = time.time()
    done = scene.run(command)
    assert (done.returncode, done.stderr) == (0, "")
    assert command.prints(done.stdout), done.stdout
    sends, calls = "sent" in command.output, "call:" in command.output
    users = [*([1, 2] if sends else []), *([3, -1, *range(100)] if calls else [])]
    runs = scene.runs(len(users))
    assert Counter(run["message"]["body"]["user_id"] for run in runs) == Counter(users)
    delayed = [run for run in runs if "aw-eta" in run["message"]["headers"]]
    assert [run["message"]["body"] for run in delayed] == ([{"user_id": 2}] if sends else [])
    assert all(DELAY <= run["at"] - began < 60 for run in delayed)
    schema = Draft202012Validator(run_program(scene.folder, scene.variables, "schema", "tasks:app").json)
    for run in runs:
        schema.validate(run["message"])
    assert scene.broker.count("amqpworker.parked") == 0


def test_a_client_is_one_file_of_at_most_70_lines() -> None:
    lengths = {path.name: len(path.read_text().splitlines()) for path in CLIENTS.iterdir() if path.suffix != ".md"}
    assert {command.line.split()[-1] for command in RUNS} == lengths.keys() - {"tasks.py"}
    assert {name: length for name, length in lengths.items() if length > 70} == {}


@pytest.mark.parametrize(("language", "count"), [("mjs", 1), ("go", 2), ("py", 1)])
def test_the_clients_of_a_language_show_all_that_there_is_to_show(language: str, count: int) -> None:
    ran = [command for command in RUNS if command.line.endswith(f".{language}")]
    assert len(ran) == count
    shown = "".join(command.output for command in ran)
    for each in ("sent\n", "due in", "call: user", "call: failed", "send: queue invoices does not exist", "100 of 100"):
        assert each in shown
