"""A pool of worker processes as a program of its own: started, watched by its log, and ended."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from amqpworker import App
from amqpworker.model.message import Message, new_id
from tests.cli import environment, started
from tests.programs import Program, whole_lines
from tests.support import Broker, wait_until

__all__ = ["SHOP", "Pool", "alive", "pool", "zombies_of"]

SHOP = """
import ctypes, os, signal, subprocess, sys, time
from pathlib import Path
from amqpworker import App, Settings

HERE = Path(__file__).parent
app = App({url!r}, settings=Settings(drain_timeout={drain}))

def note(what):
    with (HERE / "ledger").open("a") as ledger:
        ledger.write(what + "\\n")

@app.task(name="shop.slow", queue="work", retry=None)
def slow(seconds: float, mark: str) -> None:
    note(f"begin {{mark}}")
    end = time.monotonic() + seconds
    while time.monotonic() < end and not (HERE / "go").exists():
        time.sleep(0.01)
    note(f"end {{mark}}")

@app.task(name="shop.orphan", queue="work", retry=None)
def orphan() -> None:
    subprocess.run(["/bin/sh", "-c", "sleep 0.2 & echo $! >> orphans"], cwd=HERE, check=True)

@app.task(name="shop.stuck", queue="work", retry=None)
def stuck() -> None:
    once = HERE / "stuck"
    if not once.exists():
        once.touch()
        # In C, with the lock of the interpreter held: no thread of the process can move.
        ctypes.PyDLL(None).sleep(600)

@app.task(name="shop.die", queue="work", retry=None)
def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
"""


class Pool(Program):
    """A pool of workers as a process of its own."""

    def __init__(self, process: subprocess.Popen[str], folder: Path, broker: Broker | None = None) -> None:
        super().__init__(process, folder / "log")
        self.folder = folder
        self.broker = broker

    def children(self) -> list[int]:
        """Return the process ids of the worker processes that were started and consumed."""
        return [line["pid"] for line in self.events("process_started")]

    def ledger(self) -> list[str]:
        """Return what the tasks wrote."""
        return whole_lines(self.folder / "ledger")

    def send(self, task: str, **values: Any) -> None:
        """Send one of the shop's tasks."""
        assert self.broker is not None
        with App(self.broker.url) as app:
            app.queue("work")
            app.send(Message(f"shop.{task}", "work", json.dumps(values).encode(), new_id()))


def alive(pid: int) -> bool:
    """Return whether a process lives; one that waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def zombies_of(pid: int) -> list[int]:
    """Return the children of a process that have ended and were not reaped."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state == "Z" and int(parent) == pid:
            found.append(int(stat.parent.name))
    return found


@contextmanager
def pool(
    folder: Path,
    url: str,
    *options: str,
    broker: Broker | None = None,
    drain: float = 20.0,
    more: str = "",
    target: str | None = "shop:app",
    command: str = "worker",
) -> Iterator[Pool]:
    """Run a pool on the shop's tasks, and on `more` of them; whatever is left of it at the end is killed."""
    named = [] if target is None else [target]
    (folder / "shop.py").write_text(SHOP.format(url=url, drain=drain) + more)
    with (
        (folder / "log").open("w") as log,
        started(folder, environment(), command, *named, *options, stdout=log, stderr=log) as process,
    ):
        running = Pool(process, folder, broker)
        try:
            yield running
        finally:
            if process.poll() is None:
                process.kill()
            (folder / "go").touch()
            for pid in running.children():
                wait_until(lambda pid=pid: not alive(pid), 20, f"the end of {pid}")  # type: ignore[misc]
