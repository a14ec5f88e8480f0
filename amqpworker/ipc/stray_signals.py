"""
The signals that mean something to a supervisor, and nothing to its processes.

Decides that they are ignored in worker processes and isolated ones: a `pkill -HUP -f` reaches all of them.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from amqpworker.ipc.report import DUMP_SIGNAL

__all__ = ["STRAY", "held_back", "ignore", "ignore_stray"]

# A handler: programs that a task starts would inherit SIG_IGN.
TO_SUPERVISOR = (signal.SIGHUP, signal.SIGUSR1, signal.SIGQUIT)
# SIG_IGN: with a handler, a write to a terminal that sends SIGTTOU is repeated for ever.
OF_TERMINAL = (signal.SIGTTIN, signal.SIGTTOU)
STRAY = (*TO_SUPERVISOR, *OF_TERMINAL)
"""Signals that mean something to a supervisor, or end a process by default, and are ignored in its processes."""
HELD_BACK = (*STRAY, DUMP_SIGNAL)


def ignore(_number: int, _frame: FrameType | None) -> None:
    """Do nothing about a signal."""


def ignore_stray() -> None:
    """Ignore the signals that are not ours, also those that were held back while this process started."""
    for number in TO_SUPERVISOR:
        signal.signal(number, ignore)
    for number in OF_TERMINAL:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)


@contextmanager
def held_back() -> Iterator[None]:
    """Block stray signals, and that for stacks: a process that is started meanwhile receives them once it has handlers."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
