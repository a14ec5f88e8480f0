"""
The signals of a worker process and of its isolated ones.

Decides which signals are ours, that those which are meant for the supervisor do nothing here (a `pkill -HUP -f` reaches all
processes), and that our handlers are restored after code of the app has replaced them. What a signal causes is decided by
`process`.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeAlias

from amqpworker.logs import get_logger
from amqpworker.worker.report import DUMP_SIGNAL

__all__ = ["STRAY", "OwnSignals", "held_back", "ignore_stray"]

# Not `__name__`: its lines are the process's.
log = get_logger("amqpworker.worker.process")

STOPPING = (signal.SIGTERM, signal.SIGINT)
# A handler: programs that a task starts would inherit SIG_IGN.
TO_SUPERVISOR = (signal.SIGHUP, signal.SIGUSR1, signal.SIGQUIT)
# SIG_IGN: with a handler, a write to a terminal that sends SIGTTOU is repeated for ever.
OF_TERMINAL = (signal.SIGTTIN, signal.SIGTTOU)
STRAY = (*TO_SUPERVISOR, *OF_TERMINAL)
"""Signals that mean something to a supervisor, or end a process by default, and are ignored in its processes."""
HELD_BACK = (*STRAY, DUMP_SIGNAL)

Handler: TypeAlias = Callable[[int, FrameType | None], Any]


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


class OwnSignals:
    """The handlers of SIGTERM and SIGINT, as they are at first and as `set` has them; code of the app may replace them."""

    def __init__(self) -> None:
        self._handlers: dict[int, Any] = {number: signal.getsignal(number) for number in STOPPING}

    def set(self, handler: Handler) -> None:
        """Have a handler called for both; for the main thread only."""
        for number in STOPPING:
            signal.signal(number, handler)
            self._handlers[number] = handler

    def check(self, source: str) -> None:
        """Restore what `source` has replaced, and report it in the log: a process that ignores SIGTERM never drains."""
        if threading.current_thread() is not threading.main_thread():
            return
        blocked = signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
        found = {signal.Signals(number).name: "blocked" for number in STOPPING if number in blocked}
        for number, handler in self._handlers.items():
            if (other := signal.getsignal(number)) is not handler:
                found[signal.Signals(number).name] = describe(other)
                signal.signal(number, handler)
                signal.set_wakeup_fd(-1)  # an event loop would still call its handler
        if found:
            log.warning("signal_handler_replaced", source=source, handlers=found, effect="ours is restored")


def describe(handler: Any) -> str:
    """Return a handler of a signal in words; None is one that was not set by Python."""
    if isinstance(handler, signal.Handlers):
        return handler.name
    return "one of C code" if handler is None else f"{getattr(handler, '__module__', '?')}.{named(handler)}"


def named(handler: Any) -> str:
    """Return the name of a callable, or of its type."""
    return str(getattr(handler, "__qualname__", type(handler).__qualname__))
