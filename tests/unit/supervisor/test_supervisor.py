"""The parent of a pool where the machine refuses it another process, or has many files open; the memory that it shares."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from amqpworker.cli.pool_file import pool_spec
from amqpworker.supervisor.actions import Action, Drain, DumpStacks, EndOverdue, Interrupt, Kill, Start
from amqpworker.supervisor.pools import PoolSpec
from amqpworker.supervisor.supervisor import Supervisor
from amqpworker.supervisor.worker_handle import shared_memory
from amqpworker.worker.options import WorkerOptions

NO_ROOM = """
import errno, os, subprocess
from amqpworker.cli.pool_file import pool_spec
from amqpworker.errors import ConfigError
from amqpworker.supervisor import slots
from amqpworker.supervisor.supervisor import Supervisor
from amqpworker.worker.options import WorkerOptions

slots.FIRST_BACKOFF = 0.1
real, refused, open_files = subprocess.Popen, [], []

def popen(*arguments, **options):
    if "amqpworker.worker.process" not in arguments[0]:
        return real(*arguments, **options)
    open_files.append(len(os.listdir("/proc/self/fd")))
    if len(refused) < 3:
        refused.append(1)
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return real(*arguments, **options)

subprocess.Popen = popen
given = WorkerOptions(app="no_such_module:app", processes=2)
try:
    Supervisor([pool_spec("main", given)]).run()
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
    pauses = [
        float(line.split("retry_in=")[1].split()[0]) for line in done.stderr.splitlines() if "not_started" in line
    ]
    assert pauses == sorted(pauses)
    assert len(set(pauses)) == 3
    assert "Resource temporarily unavailable" in done.stderr


def test_what_is_wanted_of_a_process_that_could_not_be_started_is_left_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_spec: PoolSpec, _folder: str | None) -> NoReturn:
        raise BlockingIOError(errno.EAGAIN, "no room")

    def on_not_started(serial: int, reason: str, _now: float) -> list[Action]:
        heard.append((serial, reason))
        return [EndOverdue(1)]

    heard: list[tuple[int, str]] = []
    supervisor = Supervisor([pool_spec("main", WorkerOptions(app="shop:app", processes=1))])
    monkeypatch.setattr("amqpworker.supervisor.supervisor.WorkerHandle", refuse)
    monkeypatch.setattr(supervisor.fleet, "on_not_started", on_not_started)
    supervisor._perform([Start(1, "main", 1), Drain(1), Interrupt(1), DumpStacks(1), Kill(1)])
    assert heard == [(1, f"[Errno {errno.EAGAIN}] no room")]


MANY_FILES = """
import os, resource
from amqpworker.cli.pool_file import pool_spec
from amqpworker.errors import ConfigError
from amqpworker.supervisor.supervisor import Supervisor
from amqpworker.worker.options import WorkerOptions

resource.setrlimit(resource.RLIMIT_NOFILE, (1500, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
while os.dup(0) < 1100:
    pass
given = WorkerOptions(app="no_such_module:app", processes=1)
try:
    Supervisor([pool_spec("main", given)]).run()
except ConfigError as error:
    print(error)
"""


def test_a_pool_hears_its_processes_on_descriptors_of_any_number(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MANY_FILES], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert "There is no module 'no_such_module'" in done.stdout, done.stderr


def test_a_process_cannot_cut_off_the_memory_that_its_parent_reads() -> None:
    descriptor, memory = shared_memory(100)
    with pytest.raises(PermissionError):
        os.ftruncate(descriptor, 0)
    os.write(descriptor, b"x" * 100)
    assert memory[99:] == b"x"
    os.close(descriptor)
