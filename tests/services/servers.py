"""Web servers with the example services: started as programs of their own, reloaded, watched by their log, and ended."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from amqpworker.ipc.descendants import children_of
from amqpworker.testing.processes import free_ports
from tests.cli import environment
from tests.docs import ROOT
from tests.pools import alive
from tests.programs import Program
from tests.support import wait_until

# A broker that is restarted on a busy machine may be away for half a minute.
TIMEOUTS = {"AMQPWORKER_SEND_TIMEOUT": "45", "AMQPWORKER_CALL_TIMEOUT": "45"}
UVICORN = "uvicorn --port {port} --timeout-graceful-shutdown 60 --timeout-worker-healthcheck 60"
GUNICORN = (
    "gunicorn --bind 127.0.0.1:{port} --timeout 120 --graceful-timeout 60 --config python:tests.services.gunicorn_hooks"
)
FASTAPI, FLASK = "examples.fastapi_service:service", "examples.flask_service:service"
SERVERS = {
    "uvicorn": (f"{UVICORN} --workers 2", FASTAPI),
    "gunicorn-asgi": (f"{GUNICORN} --worker-class asgi --workers 2", FASTAPI),
    "gunicorn-sync-preload": (f"{GUNICORN} --workers 4 --preload", FLASK),
    "gunicorn-gthread": (f"{GUNICORN} --worker-class gthread --workers 2 --threads 8", FLASK),
    "gunicorn-gevent": (f"{GUNICORN} --worker-class gevent --workers 2", FLASK),
    "gunicorn-gevent-preload": (f"{GUNICORN} --worker-class gevent --workers 2 --preload", FLASK),
}
PATIENCE = 120.0  # seconds
WATCHED = 4.0  # seconds


class Server(Program):
    """A web server: its main process, and the worker processes that this has started."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, url: str) -> None:
        super().__init__(process, log)
        self.url = url

    def workers(self) -> set[int]:
        """Return the process ids of its worker processes."""
        return {pid for pid in children_of(self.process.pid) if b"resource_tracker" not in _command(pid)}

    def status(self, path: str) -> int:
        """Return the status of a response, 0 if there is none."""
        try:
            return httpx.get(self.url + path, timeout=PATIENCE).status_code
        except httpx.TransportError:
            return 0

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """Have its worker processes replaced from now on, and wait at the end of the block until the old ones have ended."""
        # gunicorn loses a signal for a worker that has just been forked, and repeats it after --graceful-timeout.
        if "gunicorn" in self.log:
            wait_until(lambda: self.workers() <= self._serving(), PATIENCE, "the worker processes serve")
        old = self.workers()
        self.signal(signal.SIGHUP)
        yield
        wait_until(lambda: not any(map(alive, old)), PATIENCE, "the old worker processes have ended")

    def _serving(self) -> set[int]:
        return {int(pid) for pid in re.findall(r"worker (\d+) serves", self.log)}

    def busiest(self) -> float:
        """Return how much of a processor the busiest of its processes uses, while no request is sent."""
        before = {pid: _cpu_seconds(pid) for pid in (self.process.pid, *self.workers())}
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(WATCHED)
        return max((_cpu_seconds(pid) - seconds) / WATCHED for pid, seconds in before.items())

    def terminate(self) -> tuple[int, set[int]]:
        """End it by SIGTERM; return its exit code, and the worker processes that it has left behind."""
        workers = self.workers()
        self.signal(signal.SIGTERM)
        return self.end(PATIENCE), set(filter(alive, workers))


@contextmanager
def serving(command: str, service: str, folder: Path, url: str, **variables: str) -> Iterator[Server]:
    """Start a server in `folder`, wait until it responds, and kill what is left of it at the end of the block."""
    (port,) = free_ports(1)
    program, *options = command.format(port=port).split()
    given = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **TIMEOUTS, **variables}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", program, service, *options],
            cwd=folder,
            env=environment(url, **given),
            stdout=log,
            stderr=log,
        )
    server = Server(process, folder / "server.log", f"http://127.0.0.1:{port}")
    try:
        wait_until(lambda: process.poll() is not None or server.status("/ready"), PATIENCE, "the service responds")
        assert process.poll() is None, server.log
        yield server
    finally:
        left = [*server.workers(), process.pid]
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
