"""Whether an event loop runs in this thread: a warning about calls that block it, and an error for those that need it."""

from __future__ import annotations

import asyncio
import sys
from types import FrameType

from amqpworker.errors import ConfigError
from amqpworker.log.logger import get_logger

log = get_logger(__name__)

OURS = __name__.partition(".")[0]


class BlockedPlaces:
    """The places of this process that were reported."""

    def __init__(self) -> None:
        self._reported: set[str] = set()

    def report(self, method: str, instead: str) -> None:
        """Warn that a method was called in a thread that runs an event loop, unless that was done for this place."""
        place = _place(sys._getframe(1))  # noqa: SLF001 - as `warnings` does
        if place in self._reported:
            return
        self._reported.add(place)
        log.warning("blocking_in_event_loop", place=place, method=method, instead=instead)


def warn_in_event_loop(method: str, has_counterpart: bool = True) -> None:
    """Warn if this thread runs an event loop, which can run nothing while the method waits; some have one for coroutines."""
    # The function that does not raise: an exception for each message would cost more than all else here.
    if asyncio._get_running_loop() is not None:  # noqa: SLF001
        PLACES.report(method, _instead_of(method) if has_counterpart else "await asyncio.to_thread(…)")


def require_event_loop() -> None:
    """Raise ConfigError unless an event loop of asyncio runs in this thread: trio has another."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigError(
            "No event loop of asyncio runs here: amqpworker's methods for coroutines do not work in trio or without a loop. "
            "Use send() and call() in a thread instead."
        ) from None


def _instead_of(method: str) -> str:
    return "async for … in …asend_each(…)" if method == "send_each" else f"await …a{method}(…)"


def _place(frame: FrameType | None) -> str:
    """Return the file and line of the first caller that is not ours."""
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == OURS:
        frame = frame.f_back
    return "unknown" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"


PLACES = BlockedPlaces()
