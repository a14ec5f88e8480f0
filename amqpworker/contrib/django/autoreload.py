"""
`manage.py amqpworker --autoreload …`: for development, a worker that loads new code when a file of the project changes.

Decides when files have changed; the worker, another process, replaces its processes by SIGHUP as in production.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from django.utils.autoreload import iter_all_python_module_files

EVERY = 1.0
"""Seconds between two checks of all files."""

FORWARDED = {signal.SIGTERM: signal.SIGTERM, signal.SIGINT: signal.SIGINT, signal.SIGHUP: signal.SIGTERM}
"""What the worker gets for a signal: when the terminal is closed, it ends."""


def run_reloading(command: Sequence[str], project: Path) -> int:
    """Run a worker by this command until it ends, and return its exit code; `project` is the folder of `manage.py`."""
    # Ignored by the worker, too, until it can handle it.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    early: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: early.append(received))
    # In a session of its own, it gets Ctrl-C from here only: twice would mean to exit at once.
    program = [sys.executable, *command]
    with subprocess.Popen(program, start_new_session=True) as worker:  # noqa: S603 - our own command

        def forward(number: int, _frame: FrameType | None) -> None:
            worker.send_signal(FORWARDED[signal.Signals(number)])

        for number in FORWARDED:
            signal.signal(number, forward)
        for received in early:
            worker.send_signal(FORWARDED[signal.Signals(received)])
        return _watch(worker, project)


def _watch(worker: subprocess.Popen[bytes], project: Path) -> int:
    known = _times(project)
    while True:
        try:
            return worker.wait(EVERY)
        except subprocess.TimeoutExpired:
            times = _times(project)
        if times != known:
            known = times
            worker.send_signal(signal.SIGHUP)


def _times(project: Path) -> dict[Path, float]:
    """Return when each file was changed: of modules, and beside those of the project, as the worker may import more by now."""
    modules = set(iter_all_python_module_files())
    own = (path.parent for path in modules if path.is_relative_to(project) and "site-packages" not in path.parts)
    found = {}
    for path in modules.union(*(folder.glob("*.py") for folder in set(own))):
        try:
            found[path] = path.stat().st_mtime
        except OSError:
            continue  # it is being replaced
    return found
