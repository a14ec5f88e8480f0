"""
Signals that are meant for a supervisor, and not for its processes.

Worker processes and isolated processes ignore them: a `pkill -HUP -f` reaches all of them. Imports the standard library only:
the supervisor's orphan reaper, which must be small, uses this module, too.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# Makes a process that is about to be killed write the stacks of its threads to the log, even if it hangs in C.
DUMP_SIGNAL = signal.SIGUSR2
# Writing the stacks of many threads takes a moment.
DUMP_GRACE = 1.0

# Ignored by a handler: programs that a task starts would inherit SIG_IGN.
TO_SUPERVISOR = (signal.SIGHUP, signal.SIGUSR1, signal.SIGQUIT)
# Ignored by SIG_IGN: with a handler, a write to a terminal that sends SIGTTOU would be repeated for ever.
OF_TERMINAL = (signal.SIGTTIN, signal.SIGTTOU)
STRAY = (*TO_SUPERVISOR, *OF_TERMINAL)
"""Signals that a supervisor handles, or that end a process by default, and that its processes ignore."""
BLOCKED_AT_START = (*STRAY, DUMP_SIGNAL)


def ignore(_number: int, _frame: FrameType | None) -> None:
    """Ignore a signal."""


def ignore_stray() -> None:
    """Ignore stray signals, also those that were blocked while this process started."""
    for number in TO_SUPERVISOR:
        signal.signal(number, ignore)
    for number in OF_TERMINAL:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, BLOCKED_AT_START)


@contextmanager
def stray_signals_blocked() -> Iterator[None]:
    """Block stray signals and `DUMP_SIGNAL`: a process that is started meanwhile receives them once it has handlers."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED_AT_START)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
