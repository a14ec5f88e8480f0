"""How the end of a process is reported."""

from __future__ import annotations

import signal
from typing import Any

from amqpworker.ipc.descendants import Ending
from amqpworker.log.logger import get_logger

__all__ = ["how_it_ended", "log_ended", "signal_name"]

log = get_logger(__name__)


def how_it_ended(code: int) -> str:
    """Return an exit code, or (negative) a signal, as people write it."""
    return f"signal {signal_name(-code)}" if code < 0 else f"exit code {code}"


def signal_name(number: int) -> str:
    """Return the name of a signal; real-time signals have none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def log_ended(ending: Ending, **fields: Any) -> None:
    """Log how many processes were ended."""
    counts = {"ended": len(ending.asked), "killed": len(ending.killed)}
    if left := ending.survivors:
        log.warning("children_not_ended", **fields, **counts, left=sorted(pid for pid, _ in left))
    elif ending.asked:
        log.info("children_ended", **fields, **counts)
