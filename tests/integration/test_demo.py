"""The demo: its end by a signal, at whatever moment it comes, and what its schedule shows."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli import environment
from tests.support import Broker, wait_until

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the demo of this checkout, and nothing of what its own demo may be doing meanwhile."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/demo.sh").symlink_to(ROOT / "scripts/demo.sh")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / ".venv/bin").mkdir(parents=True)
    # no link: Python finds its packages by its own path
    (tmp_path / ".venv/bin/python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (tmp_path / ".venv/bin/python").chmod(0o755)
    return tmp_path


def started_in(folder: Path) -> list[str]:
    """Return the processes whose working directory is the folder, or something in it."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(entry / "cwd").startswith(str(folder)):
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", [0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.5, 1.0])
def test_a_signal_in_the_first_second_ends_the_demo_without_a_traceback(
    checkout: Path, moment: float, number: signal.Signals
) -> None:
    # In a group of its own: like a Ctrl-C the signal goes to all of it.
    demo = subprocess.Popen(
        [checkout / "scripts/demo.sh"],
        cwd=checkout,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            demo.wait(moment)
        os.killpg(demo.pid, number)
        told, _ = demo.communicate(timeout=40)
        # On a busy machine it may come before bash has read a line.
        assert demo.returncode in {130, -number}, told
        assert "Traceback" not in told
        assert "Terminated" not in told
        wait_until(lambda: not started_in(checkout), what="nothing is left behind")
    finally:
        if demo.poll() is None:
            os.killpg(demo.pid, signal.SIGKILL)
            demo.wait()


def test_the_demo_shows_its_schedule_and_leaves_no_queue_on_a_broker_that_was_given(
    checkout: Path, vhost: Broker
) -> None:
    sources = checkout / "sources"
    sources.mkdir()
    (sources / "one.py").write_text("one = 1\n")
    done = subprocess.run(
        [sys.executable, "-m", "examples.demo", str(sources)],
        cwd=checkout,
        env=environment(vhost.url),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"schedule +[1-9]\d* ticks, one per second", done.stdout), done.stdout
    assert [name for name in vhost.queues() if "demo" in name] == []
