"""
Workers for tests: one in a thread of the test's own process for most, one as a real process for signals and ends.

A test defines its tasks on an app of its own, so that it sees what they do; what a real process imports is in
`tests/workertasks.py`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from amqpworker.testing import LocalWorker
from amqpworker.testing import running_worker as running
from amqpworker.worker.options import WorkerOptions
from tests.support import Broker, wait_until

__all__ = ["LocalWorker", "RealWorker", "real_worker", "running"]

ROOT = Path(__file__).parents[1]


class RealWorker:
    """A worker in a process of its own: `python -m amqpworker.worker.process`, or the pool with its supervisor."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path) -> None:
        self.log = log
        with log.open("wb") as output:
            self.popen = subprocess.Popen(
                command, stdin=subprocess.PIPE, stderr=output, stdout=output, env=environment, cwd=ROOT
            )

    def events(self) -> list[dict[str, Any]]:
        """Return what it has logged."""
        found = []
        for line in self.log.read_text(errors="replace").splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                found.append({"event": line})
        return found

    def wait_for_event(self, event: str, timeout: float = 20.0) -> dict[str, Any]:
        """Return the first line of this event, once there is one."""

        def look() -> dict[str, Any] | None:
            return next((one for one in self.events() if one["event"] == event), None)

        try:
            found = wait_until(look, timeout, f"the line {event!r}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log.read_text(errors='replace')[-4000:]}") from None
        assert found is not None
        return found

    def interrupt(self, number: int = signal.SIGTERM) -> None:
        self.popen.send_signal(number)

    def end(self, timeout: float = 30.0) -> int:
        """Wait for its end and return the exit code."""
        return self.popen.wait(timeout)


@contextmanager
def real_worker(broker: Broker, folder: Path, *, pool: int = 0, **options: Any) -> Iterator[RealWorker]:
    """
    Start a real worker on `tests.workertasks`; with `pool`, so many processes under a supervisor.

    What the tasks write goes into `folder`.
    """
    given = WorkerOptions(app="tests.workertasks:app", log_json=True, processes=pool or None, **options)
    environment = {**os.environ, "AMQPWORKER_URL": broker.url, "WORKERTASKS_FOLDER": str(folder)}
    if pool:
        code = (
            "import sys; from amqpworker.log.format import configure; from amqpworker.cli.pool_file import pool_spec;"
            "from amqpworker.supervisor.supervisor import Supervisor;"
            "from amqpworker.worker.options import WorkerOptions; configure('info', True);"
            "options = WorkerOptions.model_validate_json(sys.argv[1]);"
            "sys.exit(Supervisor([pool_spec('main', options)]).run())"
        )
        command = [sys.executable, "-c", code, given.model_dump_json()]
    else:
        command = [sys.executable, "-m", "amqpworker.worker.process", given.model_dump_json(), "0"]
    worker = RealWorker(command, environment, folder / "worker.log")
    try:
        yield worker
    finally:
        if worker.popen.poll() is None:
            worker.popen.kill()
        worker.popen.wait()
        if worker.popen.stdin is not None:
            worker.popen.stdin.close()
