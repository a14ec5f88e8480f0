"""The worker in a container: process 1 of a machine without an init, or a child of one, as docs/containers.md has it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from amqpworker import App
from amqpworker.model.message import Message, new_id
from tests.docs import ROOT, blocks
from tests.pools import SHOP
from tests.programs import whole_lines
from tests.support import Broker, wait_until
from tests.systemd.machine import numbers_of, overlay

ENTRYPOINT, *_ = blocks(ROOT / "docs/containers.md", "sh")


class Container:
    """A container on this machine's files, with its network; `docker stop` is a signal to its first process."""

    def __init__(self, root: Path, broker: Broker) -> None:
        self.root = root
        self.broker = broker
        self.folder = root / "srv/shop"
        self.folder.mkdir(parents=True)
        # What tasks write lies on a volume, since one of the file systems is read-only.
        self.data = root.parent / "data"
        self.data.mkdir()
        (root / "data").mkdir()
        app = SHOP.format(url=None, drain=20).replace("Path(__file__).parent", 'Path("/data")')
        (self.folder / "shop.py").write_text(app)
        (self.folder / "entrypoint.sh").write_text(ENTRYPOINT)
        (self.folder / "entrypoint.sh").chmod(0o755)
        secrets = root / "etc/shop-secrets"
        secrets.mkdir()
        (secrets / "amqpworker_url").write_text(broker.url)

    def run(self, *command: str, options: tuple[str, ...] = ()) -> None:
        """Run a command as the container's own."""
        self._log = (self.root.parent / "log").open("w")
        self.nspawn = subprocess.Popen(
            [
                *(
                    "systemd-nspawn",
                    "-q",
                    "-D",
                    str(self.root),
                    "--register=no",
                    "--keep-unit",
                    "--link-journal=no",
                    "--pipe",
                ),
                *(
                    "--chdir=/srv/shop",
                    f"--bind={self.data}:/data",
                    "-E",
                    "CREDENTIALS_DIRECTORY=/etc/shop-secrets",
                    *options,
                ),
                f"--setenv=PATH={Path(sys.executable).parent}:/usr/bin:/bin",
                # Containers of others have none.
                *("/usr/bin/env", "-u", "NOTIFY_SOCKET", *command),
            ],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )

    def log(self) -> str:
        return (self.root.parent / "log").read_text()

    def find(self, number: int) -> int | None:
        """Return the process that has this number inside."""
        for status in Path("/proc").glob("[0-9]*/status"):
            numbers = numbers_of(status)
            if len(numbers) > 1 and numbers[-1] == str(number) and self._is_inside(int(numbers[0])):
                return int(numbers[0])
        return None

    def _is_inside(self, pid: int) -> bool:
        try:
            return os.path.samestat(Path(f"/proc/{pid}/root/srv/shop").stat(), self.folder.stat())
        except OSError:
            return False

    def exec(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command beside the container's own, as `docker exec` does."""
        return subprocess.run(
            ["nsenter", "-t", str(self.find(1)), "-a", str(Path(sys.executable).parent / command[0]), *command[1:]],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def wait_until_ready(self) -> None:
        """Wait until `amqpworker status`, beside the worker, exits with 0."""
        wait_until(lambda: self.find(1) and not self.exec("amqpworker", "status").returncode, 60, "all consume")

    def stop(self, under_init: bool = False) -> None:
        """Send SIGTERM to process 1; to its child if that is an init, since the one of systemd-nspawn does not forward it."""
        process = self.find(1)
        if under_init:
            (process,) = map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split())
        assert process is not None
        os.kill(process, signal.SIGTERM)

    def send(self, mark: str, seconds: float) -> None:
        with App(self.broker.url) as app:
            app.queue("work")
            app.send(Message("shop.slow", "work", f'{{"seconds": {seconds}, "mark": "{mark}"}}'.encode(), new_id()))

    def ledger(self) -> list[str]:
        return whole_lines(self.data / "ledger")

    def end(self) -> None:
        # All others end with process 1; without its parent it would continue.
        if (first := self.find(1)) is not None:
            os.kill(first, signal.SIGKILL)
        self.nspawn.kill()
        self.nspawn.wait()
        self._log.close()


@pytest.fixture
def container(tmp_path: Path, vhost: Broker) -> Iterator[Container]:
    with overlay(tmp_path) as root:
        made = Container(root, vhost)
        try:
            yield made
        finally:
            made.end()
            print(made.log())


WORKER = ("amqpworker", "worker", "shop:app", "-p", "2", "-t", "1")


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (("/srv/shop/entrypoint.sh", *WORKER), ()),
        (("/srv/shop/entrypoint.sh", *WORKER), ("--as-pid2",)),
        (WORKER, ("--read-only", "--tmpfs=/tmp")),
    ],
    ids=["first process", "under an init", "read-only"],
)
def test_a_stop_lets_tasks_end_and_the_worker_exits_with_0(
    container: Container, command: tuple[str, ...], options: tuple[str, ...]
) -> None:
    container.run(*command, options=options)
    container.wait_until_ready()
    container.send("a", 1.0)
    wait_until(lambda: "begin a" in container.ledger(), 20, "it runs")
    container.stop(under_init="--as-pid2" in options)
    assert container.nspawn.wait(30) == 0, container.log()
    assert container.ledger() == ["begin a", "end a"]
    assert container.broker.count("work") == 0


def test_a_shell_that_does_not_exec_keeps_the_signal_from_the_worker(container: Container) -> None:
    container.run("/bin/sh", "-c", f"{' '.join(WORKER)}; true")
    container.wait_until_ready()
    container.stop()
    container.send("a", 0.0)
    wait_until(lambda: "end a" in container.ledger(), 20, "it runs: nothing has stopped")
    assert container.nspawn.poll() is None
