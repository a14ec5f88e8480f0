"""The parent of a pool where the machine refuses it another process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

NO_ROOM = """
import errno, os, subprocess
from amqpworker.errors import ConfigError
from amqpworker.worker import supervisor
from amqpworker.worker.options import WorkerOptions

pool = supervisor.Supervisor(WorkerOptions(app="no_such_module:app"), 2)
for child in pool._children:
    child.pause = 0.1
real, refused, open_files = subprocess.Popen, [], []

def popen(*arguments, **options):
    open_files.append(len(os.listdir("/proc/self/fd")))
    if len(refused) < 3:
        refused.append(1)
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return real(*arguments, **options)

subprocess.Popen = popen
try:
    pool.run()
except ConfigError as error:
    print(error)
assert len(open_files) == 4
assert len(set(open_files)) == 1, "nothing stays open of what was not started"
"""


def test_a_pool_that_cannot_start_a_process_tries_again_ever_more_slowly(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", NO_ROOM], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert "There is no module 'no_such_module'" in done.stdout, done.stderr
    told = [line.split("again_in=")[1] for line in done.stderr.splitlines() if "process_not_started" in line]
    assert told == ["0.1", "0.2", "0.4"]
    assert "Resource temporarily unavailable" in done.stderr
