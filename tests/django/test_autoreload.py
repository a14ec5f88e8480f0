"""`manage.py amqpworker --autoreload worker`: new code is loaded when a file changes, and Ctrl-C leaves nothing behind."""

from __future__ import annotations

import os
import signal
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
        file = Path(PROJECT, "shop/tasks.py")
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


def test_autoreload_is_refused_for_other_commands(site: Site) -> None:
    with site.managed("amqpworker", "--autoreload", "dead", "list", name="refused") as running:
        assert running.end(40) == 2
        assert running.log == "amqpworker: --autoreload is for workers: manage.py amqpworker --autoreload worker.\n"
