"""Systems that lack `memfd_create` or `pidfd_open`: an old kernel, a filter of a container, a Python without them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.cli import environment, run
from tests.pools import pool
from tests.support import Broker, wait_until

LACKING = """
import errno, os

def refused(*_):
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

del os.memfd_create
os.pidfd_open = refused
"""

MORE = """
@app.task(name="shop.alone", queue="work", retry=None, isolated=True)
def alone() -> None:
    note("alone")

@app.task(name="shop.once", queue="work", retry=None)
def once() -> None:
    if not (HERE / "died").exists():
        (HERE / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    note("second run")

@app.task(name="shop.crash", queue="work", retry=None, isolated=True)
def crash() -> None:
    # What it leaves behind holds its sockets: their end means nothing.
    subprocess.Popen(["sleep", "10"], close_fds=False, process_group=0)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_pool_reports_what_the_system_lacks_and_runs_isolated_tasks_and_suspects_without_it(
    tmp_path: Path, vhost: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(LACKING)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH", "")])))
    with pool(tmp_path, vhost.url, "-p", "1", "-t", "2", broker=vhost, more=MORE) as workers:
        workers.wait_for("process_started")
        assert {one["call"] for one in workers.events("system_call_missing")} == {"memfd_create", "pidfd_open"}
        workers.send("alone")
        wait_until(lambda: "alone" in workers.ledger(), 30)
        workers.send("once")
        wait_until(lambda: "second run" in workers.ledger(), 30)
        workers.send("crash")
        wait_until(lambda: vhost.count("work.dead") == 1, 30, "three crashes make a dead letter")
        command = ("dead", "list", "-q", "work", "--letters", "--json")
        listed = json.loads(run(tmp_path, environment(vhost.url), *command).out)
        assert [one["reason"] for one in listed] == ["crashed"]
