"""A worker process that writes garbage to the pipe and the memory that it shares with its parent."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FAKE = """#!/bin/sh
# In place of a worker process: $6 is the pipe for commands, $7 the pipe for reports, $8 the memory. USR2 asks for stacks.
trap '' USR2
printf '%s' '{{"event": "ready", "drain_timeout": 1, "reason": ""}}' >&$7
{ready}
cat garbage >&$7 &
cat garbage 1<> /proc/self/fd/$8
{end}
"""

BESIDE_FAKES = """
import sys
from amqpworker.errors import AmqpWorkerError
from amqpworker.supervisor import fleet
from amqpworker.supervisor import slots
from amqpworker.cli.pool_file import pool_spec
from amqpworker.supervisor.supervisor import Supervisor
from amqpworker.worker.options import WorkerOptions

slots.FIRST_BACKOFF = slots.MAX_BACKOFF = 0.01
fleet.MAX_DEATHS, fleet.DUMP_GRACE = 3, 0.01
sys.executable = "./fake"
given = WorkerOptions(app="a:b", processes=1)
try:
    Supervisor([pool_spec("main", given)]).run()
except AmqpWorkerError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("garbage", "ready", "end"),
    [
        (b"\x00", "", "exit 1"),
        (b"awflight", "", "exit 1"),
        (b"\xff", "echo >&$7", "exec sleep 60"),
        (b'{"event": "ready", "drain_timeout": 1e308}\n', "echo >&$7", "exec sleep 60"),
    ],
    ids=["dies-zeros", "dies-headers", "hangs-ones", "hangs-reports"],
)
def test_a_process_that_writes_garbage_wherever_it_can_is_replaced_and_its_parent_lives(
    tmp_path: Path, garbage: bytes, ready: str, end: str
) -> None:
    (tmp_path / "garbage").write_bytes(garbage * 1000)
    (tmp_path / "fake").write_text(FAKE.format(ready=ready, end=end))
    (tmp_path / "fake").chmod(0o700)
    done = subprocess.run(
        [sys.executable, "-c", BESIDE_FAKES], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert "No process has ever consumed, and 3 have ended" in done.stdout, done.stderr
    assert "Traceback" not in done.stderr
    assert ("its recording cannot be read" in done.stderr) == bool(ready)
