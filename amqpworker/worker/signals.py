"""
The signals that stop a worker process or an isolated one.

Decides that our handlers are restored after code of the app has replaced them.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeAlias

from amqpworker.log.logger import get_logger
from amqpworker.text import name_of

log = get_logger(__name__)

STOPPING = (signal.SIGTERM, signal.SIGINT)

Handler: TypeAlias = Callable[[int, FrameType | None], Any]


class OwnSignals:
    """The handlers of SIGTERM and SIGINT, first the present ones, then those of `set`; code of the app may replace them."""

    def __init__(self) -> None:
        self._handlers: dict[int, Any] = {number: signal.getsignal(number) for number in STOPPING}

    def set(self, handler: Handler) -> None:
        """Set a handler for both; for the main thread only."""
        for number in STOPPING:
            signal.signal(number, handler)
            self._handlers[number] = handler

    def check(self, source: str) -> None:
        """Restore the handlers that `source` has replaced, and log that: a process that ignores SIGTERM never drains."""
        if threading.current_thread() is not threading.main_thread():
            return
        blocked = signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
        found = {signal.Signals(number).name: "blocked" for number in STOPPING if number in blocked}
        for number, handler in self._handlers.items():
            if (other := signal.getsignal(number)) is not handler:
                found[signal.Signals(number).name] = _describe(other)
                signal.signal(number, handler)
                signal.set_wakeup_fd(-1)  # an event loop would still call its handler
        if found:
            log.warning("signal_handler_replaced", source=source, handlers=found, effect="our handler is restored")


def _describe(handler: Any) -> str:
    """Describe a signal handler in words; None is one that Python has not set."""
    if isinstance(handler, signal.Handlers):
        return handler.name
    if handler is None:
        return "a handler in C code"
    return name_of(handler)
