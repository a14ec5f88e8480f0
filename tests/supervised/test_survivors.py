"""A supervisor that is killed: no process survives it for longer than it has to drain, whatever it hangs in."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.pools import Pool, alive, pool
from tests.support import Broker, wait_until

DRAIN = 1.0
# Ten seconds as with a living supervisor, one for the stacks; the rest is for a machine that is busy.
BOUND = DRAIN + 10.0 + 1.0 + 8.0


DAEMON = """
@app.task(name="shop.daemon", queue="work", retry=None)
def daemon() -> None:
    program = ["/bin/sh", "-c", "sh -c 'echo $$ >> ledger; exec sleep 600' & exit"]
    subprocess.run(program, cwd=HERE, start_new_session=True, check=True)
"""


def reapers_of(pid: int) -> list[int]:
    """Return the processes of a supervisor that are to end what survives it."""
    children = [one for file in Path(f"/proc/{pid}/task").glob("*/children") for one in file.read_text().split()]
    return [int(one) for one in children if b"supervisor/orphan_reaper.py" in Path(f"/proc/{one}/cmdline").read_bytes()]


def kill_supervisor(workers: Pool) -> int:
    """Kill it, and return its orphan reaper, which lives on."""
    (reaper,) = reapers_of(workers.process.pid)
    workers.process.kill()
    workers.process.wait()
    return reaper


def test_a_process_that_hangs_in_c_with_the_interpreters_lock_is_killed_with_its_stacks(
    tmp_path: Path, vhost: Broker
) -> None:
    with pool(tmp_path, vhost.url, "-p", "2", "-t", "1", broker=vhost, drain=DRAIN) as workers:
        workers.wait_for("process_started", 2)
        workers.send("stuck")
        wait_until((tmp_path / "stuck").exists, what="a process hangs")
        reaper = kill_supervisor(workers)
        wait_until(lambda: not any(alive(pid) for pid in workers.children()), BOUND, "the end of both")
        assert "survives its supervisor" in workers.log
        assert "in stuck" in workers.log
        assert len(workers.events("supervisor_lost")) == 1, "the other has drained by itself"
        wait_until(lambda: not alive(reaper), what="the end of the reaper")
        vhost.wait_for_count("work", 1)


@pytest.mark.parametrize(
    ("hang", "killed"),
    [("time.sleep(600)", False), ("ctypes.PyDLL(None).sleep(600)", True)],
    ids=["waits", "holds the interpreter's lock"],
)
def test_a_process_that_hangs_at_import_ends_too(tmp_path: Path, hang: str, killed: bool) -> None:
    more = f'\n(HERE / "pid.new").write_text(str(os.getpid()))\n(HERE / "pid.new").rename(HERE / "pid")\n{hang}\n'
    with pool(tmp_path, "amqp://127.0.0.1:1/", "-p", "1", drain=DRAIN, more=more) as workers:
        wait_until((tmp_path / "pid").exists, what="the import has begun")
        kill_supervisor(workers)
        wait_until(lambda: not alive(int((tmp_path / "pid").read_text())), BOUND, "its end")
        assert ("survives its supervisor" in workers.log) is killed


def test_a_reaper_that_dies_is_replaced_and_knows_all_that_the_first_knew(tmp_path: Path, vhost: Broker) -> None:
    with pool(tmp_path, vhost.url, "-p", "1", "-t", "1", broker=vhost, drain=DRAIN, more=DAEMON) as workers:
        workers.wait_for("process_started")
        (first,) = reapers_of(workers.process.pid)
        os.kill(first, signal.SIGKILL)
        workers.wait_for("orphan_reaper_lost")
        wait_until(lambda: reapers_of(workers.process.pid) not in ([], [first]), 20, "another")
        workers.send("daemon")
        daemon = int(wait_until(lambda: [line for line in workers.ledger() if line.isdecimal()], what="a daemon")[0])
        workers.send("stuck")
        wait_until((tmp_path / "stuck").exists, what="a process hangs")
        kill_supervisor(workers)
        wait_until(lambda: not any(alive(pid) for pid in workers.children()), BOUND, "its end")
        wait_until(lambda: not alive(daemon), what="the end of the daemon that a task of it has started")


def test_a_supervisor_that_stops_takes_its_reaper_along(tmp_path: Path, vhost: Broker) -> None:
    with pool(tmp_path, vhost.url, "-p", "1", broker=vhost) as workers:
        workers.wait_for("process_started")
        (reaper,) = reapers_of(workers.process.pid)
        # Signals for whole process groups and control groups are not meant for it.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(reaper, number)
        workers.signal(signal.SIGTERM)
        assert workers.end() == 0
        assert not alive(reaper)
        assert workers.events("orphan_reaper_lost") == []
