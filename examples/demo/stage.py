"""
What the demo runs on: a broker and a pool of worker processes, started and stopped.

Without AMQPWORKER_URL the broker is a private node that begins empty. With it everything happens in two queues of the
demo's own, which go at the end.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Self
from zlib import crc32

import pika

from amqpworker import ConfigError
from amqpworker.broker.address import addresses, parameters
from amqpworker.settings import Settings
from amqpworker.testing import Node
from amqpworker.testing.configuration import Record
from amqpworker.testing.processes import MARK, kill_with_parent

FOLDER = Path(".amqpworker/demo")
NODE = FOLDER / "broker"
LEFT = FOLDER / "left.pid"
PROCESSES = 2
THREADS = 4
STOP_SECONDS = 20.0


class Stage:
    """A broker and a pool of workers; `close` may be called at any time, and again."""

    def __init__(self, *, keep: bool) -> None:
        self.url = os.environ.get("AMQPWORKER_URL", "")
        self.queue = f"amqpworker-demo-{crc32(os.getcwdb()):08x}" if self.url else "demo"
        self.log = FOLDER / "workers.log"
        self.node = None if self.url else Node(NODE, tied=not keep)
        self._keep = keep
        self._tie: int | None = None
        self._workers: subprocess.Popen[bytes] | None = None
        self._lock: IO[str] | None = None
        self._opened = False

    @property
    def where(self) -> str:
        """Tell where this can be looked at."""
        if self.node is None:
            return f"the management UI of your broker, queues {self.queue} and {self.queue}.dead"
        return f"{self.node.management_url}#/queues (login guest, guest)"

    def open(self) -> Self:
        """
        Start the broker, if it has to be, with nothing of an earlier run in it.

        Raises: `ConfigError` when it cannot be started, or when a demo runs in this checkout already.
        """
        FOLDER.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        stop_left()
        for old in FOLDER.glob("results.db*"):
            old.unlink()
        self._opened = True
        if self.node is None:
            self._delete_queues()
        else:
            self.node.discard()
            shutil.rmtree(NODE / "data", ignore_errors=True)
            self.url = self.node.start().url()
        return self

    def start_workers(self) -> None:
        """Start the pool; what it logs goes to a file."""
        command = [sys.executable, "-m", "amqpworker", "worker", "examples.demo.tasks:app", "--log-json"]
        command += ["-p", str(PROCESSES), "-t", str(THREADS)]
        env = self._environment()
        with self.log.open("wb") as log:
            # In a session of its own: a Ctrl-C is ours to pass on, and a kept pool outlives this terminal.
            self._workers = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, start_new_session=True
            )
        if not self._keep:
            self._tie = kill_with_parent(env, self.log, [self._workers.pid])

    def check_workers(self) -> None:
        """Raise `ConfigError` when the pool has ended by itself."""
        if self._workers is not None and self._workers.poll() is not None:
            tail = self.log.read_text(errors="replace").strip().splitlines()[-1:] or ["nothing"]
            raise ConfigError(f"The workers ended with code {self._workers.returncode}; {self.log} says: {tail[0]}")

    def keep(self) -> None:
        """Leave everything running, for `stop_left`."""
        assert self._workers is not None
        LEFT.write_text(str(self._workers.pid))
        self._workers = None
        self._opened = False

    def close(self) -> None:
        """Stop the workers, then the broker if it was started here."""
        if self._workers is not None:
            end(self._workers.pid, self._workers)
            self._workers = None
        if self._tie is not None:
            os.close(self._tie)
            self._tie = None
        if not self._opened:
            return
        self._opened = False
        if self.node is not None:
            self.node.discard()
            return
        with suppress(ConfigError):
            self._delete_queues()

    def _environment(self) -> dict[str, str]:
        # The parser warns of old spellings in what it reads, which is not what the log is for.
        added = {"AMQPWORKER_URL": self.url, "DEMO_QUEUE": self.queue, "PYTHONWARNINGS": "ignore"}
        # With the mark of the node, so that whoever ends that ends these too, `make clean` for one.
        record = Record.read(NODE) if self.node is not None else None
        return os.environ | added | {MARK: record.mark if record is not None else secrets.token_hex(6)}

    def _take_lock(self) -> None:
        self._lock = (FOLDER / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError("A demo runs in this checkout already: wait for it, or end it with Ctrl-C.") from None

    def _delete_queues(self) -> None:
        """
        Delete the queues of this demo on a broker that is not ours.

        Raises: `ConfigError` when the broker cannot be reached.
        """
        first = addresses(self.url)[0]
        try:
            connection = pika.BlockingConnection(parameters(first, Settings(), "amqpworker demo"))
            with connection:
                for name in (self.queue, f"{self.queue}.dead"):
                    connection.channel().queue_delete(name)
        except (pika.exceptions.AMQPError, OSError) as error:
            raise ConfigError(f"The broker at {first} (AMQPWORKER_URL) does not let us in: {error!r}") from error


def stop_left() -> bool:
    """Stop what a demo with KEEP=1 has left running; false when there is nothing."""
    try:
        pid = int(LEFT.read_text())
    except (OSError, ValueError):
        return False
    if b"examples.demo.tasks:app" in command_of(pid):
        end(pid)
    Node(NODE).discard()
    LEFT.unlink()
    return True


def command_of(pid: int) -> bytes:
    """Return the command line of a process; nothing when there is none."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def end(pid: int, process: subprocess.Popen[Any] | None = None) -> None:
    """End a pool of workers in good order, or else by force."""
    for number, patience in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, 5.0)):
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        until = time.monotonic() + patience
        while time.monotonic() < until:
            if process.poll() is not None if process else not command_of(pid):
                return
            time.sleep(0.05)
