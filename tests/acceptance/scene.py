"""
One fault scene: a virtual host, real processes around it, and the ledger that they write.

The processes are started with AMQPWORKER_PYTHON, the interpreter that has the built and installed wheel, and find the
app under test in `service/`, never the checkout.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from amqpworker import Settings
from tests.acceptance.service.ledger import Ledger, Line, Reader
from tests.support import Broker, wait_until

PYTHON = os.environ.get("AMQPWORKER_PYTHON", sys.executable)
SERVICE = Path(__file__).parent / "service"
QUEUE = "work"
MOST_ATTEMPTS = 3
CALL_TIMEOUT = 5.0
DRAIN = 10.0


@dataclass
class Scene:
    """Starts processes, notes faults, follows the ledger; `close` leaves no process behind."""

    broker: Broker
    folder: Path
    url: str = ""
    results: bool = False
    settings: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.ledger = Ledger(self.folder / "ledger.jsonl")
        self.kills = self.folder / "kills"
        self.kills.mkdir()
        self.url = self.url or self.broker.url
        self._processes: list[tuple[str, subprocess.Popen[bytes]]] = []
        self._lines = Reader(self.ledger.path)

    @property
    def results_url(self) -> str:
        """The store of results, where the scene has one."""
        return f"sqlite:///{self.folder}/results.db"

    @property
    def send_timeout(self) -> float:
        """The seconds in which each send of the scene is to end."""
        return float(self.settings.get("send_timeout", Settings.model_fields["send_timeout"].default))

    # ---- processes --------------------------------------------------------------------------------------------------

    def start(self, *arguments: str, log: str, url: str = "", **environment: str) -> subprocess.Popen[bytes]:
        """Start a process under test; it ends with us, and its output goes to a file."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("AMQPWORKER_", "PYTHON"))}
        env = {
            **clean,
            "PYTHONPATH": str(SERVICE),
            "AMQPWORKER_URL": url or self.url,
            "LEDGER": str(self.ledger.path),
            **({"RESULTS": self.results_url} if self.results else {}),
            **{f"AMQPWORKER_{name.upper()}": value for name, value in self.settings.items()},
            **environment,
        }
        command = ["setpriv", "--pdeathsig", "TERM", PYTHON, "-m", *arguments]
        with (self.folder / f"{log}.log").open("ab") as output:
            process = subprocess.Popen(command, cwd=self.folder, env=env, stdout=output, stderr=output)
        self._processes.append((log, process))
        return process

    def pool(
        self, *arguments: str, kill_at: str = "", kills: int = 0, kill_by: str = "8", url: str = ""
    ) -> subprocess.Popen[bytes]:
        """Start `amqpworker worker`; with `kill_at`, so many of its processes die at that step, by the n-th time."""
        for number in range(kills):
            (self.kills / str(number)).touch()
        trap = {"KILL_AT": kill_at, "KILLS": str(self.kills), "KILL_BY": kill_by} if kill_at else {}
        given = arguments or ("-p", "2", "-t", "4")
        return self.start(
            *("amqpworker", "worker", "jobs:app", "--drain-timeout", str(DRAIN), "--log-json", *given),
            log="pool",
            url=url,
            **trap,
        )

    def sender(self, *arguments: str, url: str = "") -> subprocess.Popen[bytes]:
        """Start the sending service."""
        return self.start("sender", *arguments, log="sender", url=url)

    def send(self, *arguments: str) -> None:
        """Run the sending service to its end."""
        assert self.sender(*arguments).wait(60) == 0, self.said("sender")

    def stop_all(self, log: str, timeout: float = 60.0) -> None:
        """End the processes of a kind in good order; one that ends otherwise fails the test."""
        running = [process for kind, process in self._processes if kind == log and process.poll() is None]
        for process in running:
            process.send_signal(signal.SIGTERM)
        for process in running:
            try:
                code = process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGUSR1)  # it shows where its threads are
                with suppress(subprocess.TimeoutExpired):
                    process.wait(1)
                raise AssertionError(f"It does not end: {self.said(log, 10_000)}") from None
            assert code == 0, f"exit code {code}: {self.said(log)}"

    def said(self, log: str, length: int = 3000) -> str:
        """Return the end of the output of processes."""
        path = self.folder / f"{log}.log"
        return f"\n--- {log}:\n{path.read_text()[-length:]}" if path.is_file() else ""

    def close(self) -> list[str]:
        """End every process of the scene, and return what had to be killed although it was asked to stop."""
        running = [process for _, process in self._processes if process.poll() is None]
        for process in running:
            process.send_signal(signal.SIGTERM)
        for process in running:
            with suppress(subprocess.TimeoutExpired):
                process.wait(DRAIN + 10)
        with suppress(AssertionError):
            wait_until(lambda: not self.living(), 5)
        left = self.living()
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for _, process in self._processes:
            process.wait(10)
        return list(left.values())

    def living(self) -> dict[int, str]:
        """Return the processes of this scene that live, by the ledger in their environment."""
        mark = f"LEDGER={self.ledger.path}".encode()
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with suppress(OSError):
                    if mark in (entry / "environ").read_bytes().split(b"\0"):
                        found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
        return found

    # ---- the ledger -------------------------------------------------------------------------------------------------

    def fault(self, what: str) -> float:
        """Note that something is done to the broker or the network now; returns the time."""
        self.ledger.write("fault", what=what)
        return float(self.events("fault")[-1]["at"])

    def events(self, *kinds: str) -> list[Line]:
        """Return what was written so far, of these kinds."""
        by_kind = self._lines.by_kind()
        return [line for kind in kinds for line in by_kind.get(kind, ())]

    def count(self, kind: str, since: float = 0.0) -> int:
        """Count the events of a kind, from a time on."""
        return sum(line["at"] >= since for line in self.events(kind))

    def wait_for(self, kind: str, count: int, since: float = 0.0, timeout: float = 30.0) -> None:
        """Wait until so many events of a kind have happened."""
        self.wait_until(lambda: self.count(kind, since) >= count, timeout, f"{count} times {kind!r}")

    def wait_until(self, predicate: Callable[[], bool], timeout: float, what: str) -> None:
        """Wait; if it does not come true, show the output of the processes."""
        try:
            wait_until(predicate, timeout, what)
        except AssertionError as error:
            counts = {kind: len(lines) for kind, lines in self._lines.by_kind().items()}
            raise AssertionError(f"{error}\n{counts}{self.said('pool')}{self.said('sender')}") from None


def copies_wait(said: str) -> bool:
    """Return whether a pool has logged that copies are not confirmed: of those that were written, or of those that were not."""
    return "copies_unconfirmed" in said or "copy_not_confirmed" in said
