"""
What the demo runs on: a broker and a pool of worker processes, started and stopped.

Without AMQPWORKER_URL the broker is a private node that is empty at the start. With it the demo uses a few queues on that
broker, which are deleted at the end.
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
from amqpworker.broker.address import addresses
from amqpworker.broker.pika_parameters import parameters
from amqpworker.routing.topology import Names, dead_queue
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
    """A broker and a pool of workers; `close` may be called at any time, and more than once."""

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
        """Where a user can inspect the broker."""
        if self.node is None:
            return f"the management UI of your broker, queues {self.queue} and {self.queue}.dead"
        return f"{self.node.management_url}#/queues (login guest, guest)"

    def open(self) -> Self:
        """
        Start the broker, unless a URL is given, without any data of an earlier run.

        Raises: `ConfigError` if it cannot be started, or if a demo already runs in this checkout.
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
        """Start the pool; its log goes to a file."""
        command = [sys.executable, "-m", "amqpworker", "worker", "examples.demo.tasks:app", "--log-json"]
        command += ["-p", str(PROCESSES), "-t", str(THREADS), "--scheduler", "--scheduler-name", self.queue]
        env = self._environment()
        with self.log.open("wb") as log:
            # In its own session: this process forwards a Ctrl-C, and a pool that is kept outlives this terminal.
            self._workers = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, start_new_session=True
            )
        if not self._keep:
            self._tie = kill_with_parent(env, self.log, [self._workers.pid])

    def check_workers(self) -> None:
        """Raise `ConfigError` if the pool has ended by itself."""
        if self._workers is not None and self._workers.poll() is not None:
            tail = self.log.read_text(errors="replace").strip().splitlines()[-1:] or ["nothing"]
            raise ConfigError(
                f"The workers ended with code {self._workers.returncode}; the last line of {self.log}: {tail[0]}"
            )

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
        # The parser warns about old syntax in the files that it reads, which does not belong in the log.
        added = {"AMQPWORKER_URL": self.url, "DEMO_QUEUE": self.queue, "PYTHONWARNINGS": "ignore"}
        # With the mark of the node, so that `make clean`, which ends the node, ends these processes as well.
        record = Record.read(NODE) if self.node is not None else None
        return os.environ | added | {MARK: record.mark if record is not None else secrets.token_hex(6)}

    def _take_lock(self) -> None:
        self._lock = (FOLDER / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                "A demo is already running in this checkout: wait for it, or end it with Ctrl-C."
            ) from None

    def _delete_queues(self) -> None:
        """
        Delete the queues of this demo on the broker of the URL.

        Raises: `ConfigError` if the broker cannot be reached.
        """
        first = addresses(self.url)[0]
        try:
            connection = pika.BlockingConnection(parameters(first, Settings(), "amqpworker demo"))
            with connection:
                work = (self.queue, f"{self.queue}.pulse")
                for name in (*work, *map(dead_queue, work), Names().schedule_queue(self.queue)):
                    connection.channel().queue_delete(name)
        except (pika.exceptions.AMQPError, OSError) as error:
            raise ConfigError(f"Could not connect to the broker at {first} (AMQPWORKER_URL): {error!r}") from error


def stop_left() -> bool:
    """Stop what a demo with KEEP=1 has left running; return whether there was anything."""
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
    """Return the command line of a process, empty if it does not exist."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def end(pid: int, process: subprocess.Popen[Any] | None = None) -> None:
    """Stop a pool of workers gracefully, or kill it if it does not stop."""
    for number, patience in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, 5.0)):
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        until = time.monotonic() + patience
        while time.monotonic() < until:
            if process.poll() is not None if process else not command_of(pid):
                return
            time.sleep(0.05)
