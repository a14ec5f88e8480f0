"""New code while a pool runs: a link that leads to another release."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import amqpworker
from amqpworker.ipc import recorder
from amqpworker.ipc.interpreter import FLAG, VERSION_MISMATCH
from tests.pools import alive, pool
from tests.support import Broker, wait_until

LOADED = "\nnote(f'loaded {Path.cwd().name} {sys.path[0]}')\n"


def test_a_reload_and_a_death_follow_the_link_by_which_the_folder_was_named(
    tmp_path: Path, vhost: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new, current = tmp_path / "release-1", tmp_path / "release-2", tmp_path / "current"
    old.mkdir()
    current.symlink_to(old.name)
    monkeypatch.setenv("PWD", str(current))
    with pool(current, vhost.url, "-p", "1", broker=vhost, more=LOADED) as workers:
        workers.wait_for("process_started")
        assert workers.ledger() == [f"loaded release-1 {old}"]
        new.mkdir()
        shutil.copy(old / "shop.py", new)
        os.link(old / "log", new / "log")
        (tmp_path / "next").symlink_to(new.name)
        (tmp_path / "next").rename(current)
        workers.signal(signal.SIGHUP)
        workers.wait_for("process_started", 2)
        assert workers.ledger() == [f"loaded release-2 {new}"]
        # While the link is missing the place where the supervisor was started is as good as any.
        (*_, newest) = workers.children()
        current.unlink()
        os.kill(newest, signal.SIGKILL)
        wait_until(lambda: (old / "ledger").read_text().count("loaded") == 2)
        current.symlink_to(new.name)
        workers.wait_for("process_started", 3)
        workers.signal(signal.SIGTERM)
        assert workers.end() == 0


def upgrade(package: Path) -> None:
    """Have another version of the package, which records in another way."""
    for name, before, after in (
        ("__init__.py", f'__version__ = "{amqpworker.__version__}"', '__version__ = "99.0"'),
        ("ipc/recorder.py", f"VERSION = {recorder.VERSION}", "VERSION = 99"),
    ):
        file = package / name
        assert before in file.read_text()
        file.write_text(file.read_text().replace(before, after))


def test_an_upgrade_under_a_running_pool_keeps_the_old_processes_and_logs_that_a_restart_is_due(
    tmp_path: Path, vhost: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "packages" / "amqpworker"
    shutil.copytree(Path(amqpworker.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    with pool(tmp_path, vhost.url, "-p", "2", broker=vhost) as workers:
        workers.wait_for("process_started", 2)
        first, second = workers.children()
        upgrade(package)
        workers.signal(signal.SIGHUP)
        (failed,) = workers.wait_for("reload_failed")
        ours = amqpworker.__version__
        due = f"amqpworker 99.0 is installed, but the pool was started with {ours}: restart it; until then none of"
        assert failed["reason"].startswith(due)
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: [one for one in workers.events("process_died") if one["reason"] == failed["reason"]])
        workers.send("slow", seconds=0, mark="a")
        wait_until(lambda: "end a" in workers.ledger())
        assert alive(second)
        assert workers.children() == [first, second]
        assert workers.events("process_killed") == []
        workers.signal(signal.SIGTERM)
        assert workers.end() == 0


def test_an_isolated_process_of_another_version_than_its_worker_runs_nothing() -> None:
    command = [sys.executable, "-m", "amqpworker.worker.isolation.program", f"{FLAG}0.0", "what", "another", "says"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (VERSION_MISMATCH, "")
