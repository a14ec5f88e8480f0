"""`manage.py amqpworker --autoreload worker`: new code is loaded when a file changes, and Ctrl-C leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from amqpworker.ipc.descendants import children_of
from tests.django.conftest import PROJECT, Site
from tests.pools import alive
from tests.support import wait_until


def all_below(pid: int) -> set[int]:
    below = children_of(pid)
    return set(below).union(*map(all_below, below))


def test_a_changed_file_replaces_the_worker_processes_and_ctrl_c_ends_all(site: Site) -> None:
    command = ("amqpworker", "--autoreload", "worker", "-p", "1", "-t", "1", "--log-json")
    with site.managed(*command, name="autoreload") as running:
        running.wait_for("queue_consuming", 2, 60)
        started = all_below(running.process.pid)
        file = Path(PROJECT, "shop/views.py")  # not imported yet
        before = file.stat()
        os.utime(file, (before.st_atime, before.st_mtime + 1))
        try:
            running.wait_for("supervisor_reloading", 1, 20)
            running.wait_for("queue_consuming", 4, 60)
        finally:
            os.utime(file, (before.st_atime, before.st_mtime))
        below = started | all_below(running.process.pid)
        running.signal(signal.SIGINT)
        assert running.end(40) == 0, running.log
        wait_until(lambda: not any(map(alive, below)), 10, "nothing is left behind")


PROGRAM = """
import sys
from pathlib import Path
from amqpworker.contrib.django.autoreload import run_reloading
sys.exit(run_reloading(["-c", "import time; print('started', flush=True); time.sleep(60)"], Path.cwd()))
"""


def test_a_terminal_that_is_closed_ends_the_worker() -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE) as watcher:
        assert watcher.stdout is not None
        try:
            watcher.stdout.readline()
            below = all_below(watcher.pid)
            watcher.send_signal(signal.SIGHUP)
            assert watcher.wait(20) == 256 - signal.SIGTERM
            assert not any(map(alive, below))
        finally:
            watcher.kill()


def test_autoreload_is_refused_for_other_commands(site: Site) -> None:
    with site.managed("amqpworker", "--autoreload", "dead", "list", name="refused") as running:
        assert running.end(40) == 2
        assert running.log == "amqpworker: --autoreload is for workers: manage.py amqpworker --autoreload worker.\n"
