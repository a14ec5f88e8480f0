"""One machine for all tests of systemd, and a unit in it for each."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from amqpworker import App
from amqpworker.model.message import Message, new_id
from tests.pools import SHOP
from tests.support import Broker, wait_until
from tests.systemd.machine import Machine

UNIT = "shop.service"


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    running = Machine(tmp_path_factory.mktemp("machine"))
    yield running
    running.power_off()


class Service:
    """A unit `shop.service` on the machine, as `amqpworker unit` prints it."""

    def __init__(self, machine: Machine, broker: Broker) -> None:
        self.machine = machine
        self.broker = broker
        self.folder = machine.root / "srv/shop"
        self.folder.mkdir(parents=True, exist_ok=True)
        # The user of the service may write the ledger.
        self.folder.chmod(0o777)
        self.write_app()

    def write_app(self, more: str = "") -> None:
        """Write the app, as of now; its URL comes from the unit's credential."""
        text = SHOP.format(url=None, drain=20).replace("Path(__file__).parent", 'Path("/var/lib/shop")')
        (self.folder / "shop.py").write_text(text + more)

    def install(self, *options: str, changes: dict[str, str] | None = None, more: str = "", url: str = "") -> None:
        """Write the unit, with lines of it replaced and `more` in its section [Service], and have systemd read it."""
        credential = self.machine.root / "etc/amqpworker"
        credential.mkdir(exist_ok=True)
        (credential / "url").write_text(url or self.broker.url)
        command = [sys.executable, "-m", "amqpworker", "unit", "--name", "shop", "--folder", "/srv/shop"]
        told = options if "--config" in options else ("shop:app", "--", *options)
        done = subprocess.run([*command, *told], capture_output=True, text=True, check=True)
        text = done.stdout
        for old, new in (changes or {}).items():
            assert old in text
            text = text.replace(old, new)
        text = text.replace("[Service]", f"[Service]\nStateDirectory=shop\n{more}")
        (self.machine.root / "etc/systemd/system" / UNIT).write_text(text)
        self.machine.systemctl("daemon-reload")

    def start(self) -> None:
        self.machine.systemctl("start", UNIT)

    def pid(self) -> int:
        """Return the supervisor's number inside."""
        return int(self.machine.show(UNIT, "MainPID"))

    def children(self) -> list[int]:
        """Return the worker processes' numbers inside."""
        found = [pid for pid in self.machine.processes(UNIT) if self._is_worker(pid)]
        assert found, "a unit that runs has processes"
        return found

    def _is_worker(self, pid: int) -> bool:
        return "amqpworker.worker.process" in self.machine.run("cat", f"/proc/{pid}/cmdline").stdout

    def status(self) -> str:
        return self.machine.show(UNIT, "StatusText")

    def send(self, task: str, **values: object) -> None:
        with App(self.broker.url) as app:
            app.queue("work")
            app.send(Message(f"shop.{task}", "work", json.dumps(values).encode(), new_id()))

    def ledger(self) -> list[str]:
        """Return what the tasks wrote."""
        whole, _, _ = self.machine.run("cat", "/var/lib/shop/ledger").stdout.rpartition("\n")
        return whole.splitlines()

    def wait_for(self, what: str, timeout: float = 40.0) -> None:
        """Wait until something is in the journal."""
        wait_until(lambda: what in self.machine.journal(), timeout, f"{what!r} in the journal")

    def remove(self) -> None:
        """Stop it and forget it."""
        self.machine.run("systemctl", "kill", "-s", "KILL", UNIT)
        self.machine.run("systemctl", "stop", UNIT)
        self.machine.run("systemctl", "reset-failed", UNIT)
        self.machine.run("rm", "-rf", "/var/lib/shop", "/var/lib/private/shop", "/run/log/journal")


@pytest.fixture
def service(machine: Machine, vhost: Broker) -> Iterator[Service]:
    made = Service(machine, vhost)
    yield made
    made.remove()
