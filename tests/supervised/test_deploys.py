"""New code while a pool runs: a link that leads to another release."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.pools import pool
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
