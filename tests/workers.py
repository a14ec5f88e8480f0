"""
Workers for tests: one in a thread of the test's own process for most, one as a real process for signals and ends.

A test defines its tasks on an app of its own, so that it sees what they do; what a real process imports is in
`tests/workertasks.py`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from amqpworker.testing import LocalWorker
from amqpworker.testing import running_worker as running
from amqpworker.worker.options import WorkerOptions
from tests.programs import Program
from tests.support import Broker

__all__ = ["LocalWorker", "real_worker", "running"]

ROOT = Path(__file__).parents[1]


@contextmanager
def real_worker(broker: Broker, folder: Path, *, pool: int = 0, **options: Any) -> Iterator[Program]:
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
    log = folder / "worker.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stderr=output, stdout=output, env=environment, cwd=ROOT
        )
    with process:
        try:
            yield Program(process, log)
        finally:
            process.kill()
