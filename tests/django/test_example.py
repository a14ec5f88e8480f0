"""The project in `examples/django`, started as its page shows, from a copy of the folder."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from amqpworker.testing.processes import free_ports
from tests.cli import environment
from tests.conftest import fresh_vhost
from tests.docs import ROOT, Command, commands
from tests.nodes import Node
from tests.support import wait_until

EXAMPLE = ROOT / "examples/django"
ADDRESS = "127.0.0.1:8000"


@dataclass(frozen=True)
class Terminal:
    """What types commands: in a copy of the folder, at an address of its own."""

    folder: Path
    variables: dict[str, str]
    activate: str
    address: str

    def command(self, line: str) -> list[str]:
        return ["bash", "-c", f"{self.activate} && exec {line.replace(ADDRESS, self.address)}"]

    def run(self, command: Command) -> str:
        ended = subprocess.run(
            self.command(command.line), cwd=self.folder, env=self.variables, text=True, capture_output=True, check=False
        )
        return ended.stdout + ended.stderr

    @contextmanager
    def started(self, command: Command) -> Iterator[None]:
        """Run a program for the time of a block, until Ctrl-C, which its children get as well."""
        log = self.folder / f"{command.line.split()[2]}.log"
        with (
            log.open("w") as out,
            subprocess.Popen(
                self.command(command.line),
                cwd=self.folder,
                env=self.variables,
                stdout=out,
                stderr=out,
                start_new_session=True,
            ) as process,
        ):
            try:
                yield
                os.killpg(process.pid, signal.SIGINT)
                assert process.wait(30) == 0, log.read_text()
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)


def answers(address: str) -> bool:
    try:
        return httpx.get(f"http://{address}/").status_code == 404
    except httpx.TransportError:
        return False


def test_the_example_is_started_as_its_page_shows_and_shows_the_result_of_an_order(
    own_node: Node, tmp_path: Path
) -> None:
    folder = tmp_path / "examples/django"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("*.db*", "__pycache__"))
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    activate, migrate, worker, server, place, show = commands(EXAMPLE / "README.md")
    (port,) = free_ports(1)
    with fresh_vhost(own_node, "example") as broker:
        variables = environment(broker.url)
        variables.pop("DJANGO_SETTINGS_MODULE", None)  # of the other project
        terminal = Terminal(folder, variables, activate.line, f"127.0.0.1:{port}")
        migrated = terminal.run(migrate)
        assert migrate.prints(migrated), migrated
        with terminal.started(worker), terminal.started(server):
            wait_until(lambda: answers(terminal.address), 40, "the server runs")
            placed = terminal.run(place)
            assert place.prints(placed + "\n"), placed
            wait_until(lambda: show.prints(terminal.run(show) + "\n"), 30, "the order has its invoice")
