"""The supervisor as a program of its own: small, known by its name, and with the signals of the command line's process."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from tests.cli import environment, run
from tests.pools import Pool, pool
from tests.support import Broker, wait_until

MOST_MIB = 40


def resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024**2


def compiled_parts(pid: int) -> set[str]:
    """Return the names of the compiled modules that a process has loaded."""
    return set(re.findall(r"/(\w+)\.[\w.-]*so\b", Path(f"/proc/{pid}/maps").read_text()))


def use(workers: Pool, folder: Path) -> None:
    """Have a supervisor do what it is there for: answer, look, and replace its processes."""
    workers.wait_for("process_started", 2)
    assert "2/2 consuming" in run(folder, environment(), "status", str(workers.process.pid)).out
    workers.signal(signal.SIGUSR1)
    workers.wait_for("process_status", 2)
    workers.signal(signal.SIGHUP)
    workers.wait_for("process_ended", 2)


@pytest.mark.parametrize("form", ["--log-json", "--no-log-json"])
def test_a_supervisor_at_work_holds_little_memory(tmp_path: Path, vhost: Broker, form: str) -> None:
    with pool(tmp_path, vhost.url, "-p", "2", "-t", "2", "--health", "127.0.0.1:0", form, broker=vhost) as workers:
        if form == "--log-json":
            use(workers, tmp_path)
        else:
            wait_until(lambda: workers.log.count("process_started") == 2)
        assert resident_mib(workers.process.pid) <= MOST_MIB
        assert "_pydantic_core" not in compiled_parts(workers.process.pid)
        workers.signal(signal.SIGTERM)
        assert workers.end() == 0


def test_the_list_of_processes_shows_to_which_pool_a_supervisor_belongs(tmp_path: Path, vhost: Broker) -> None:
    with pool(tmp_path, vhost.url, "-p", "1", "-t", "1", broker=vhost) as workers:
        workers.wait_for("process_started")
        about = Path(f"/proc/{workers.process.pid}")
        assert (about / "comm").read_text() == "amqpworker\n"
        assert b"\0amqpworker.supervisor\0shop:app\0" in (about / "cmdline").read_bytes()
        (child,) = workers.children()
        assert "_pydantic_core" in compiled_parts(child), "this is how one would see it"
        workers.signal(signal.SIGTERM)
        assert workers.end() == 0
