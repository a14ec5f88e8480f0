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

FORWARDED = (signal.SIGTERM, signal.SIGINT)


def run_reloading(command: Sequence[str]) -> int:
    """Run a worker by this command until it ends, and return its exit code."""
    # Ignored by the worker, too, until it can handle it.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    early: list[int] = []
    for number in FORWARDED:
        signal.signal(number, lambda received, _: early.append(received))
    # In a session of its own, it gets Ctrl-C from here only: twice would mean to exit at once.
    program = [sys.executable, *command]
    with subprocess.Popen(program, start_new_session=True) as worker:  # noqa: S603 - our own command

        def forward(number: int, _frame: FrameType | None) -> None:
            worker.send_signal(number)

        for number in FORWARDED:
            signal.signal(number, forward)
        for received in early:
            worker.send_signal(received)
        return _watch(worker)


def _watch(worker: subprocess.Popen[bytes]) -> int:
    known = _times()
    while True:
        try:
            return worker.wait(EVERY)
        except subprocess.TimeoutExpired:
            times = _times()
        if times != known:
            known = times
            worker.send_signal(signal.SIGHUP)


def _times() -> dict[Path, float]:
    found = {}
    for path in iter_all_python_module_files():
        try:
            found[path] = path.stat().st_mtime
        except OSError:
            continue  # it is being replaced
    return found
