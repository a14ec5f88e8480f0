"""How logs and errors describe the end of a process."""

from __future__ import annotations

import signal
from typing import Any

from amqpworker.ipc.descendants import Termination
from amqpworker.log.logger import get_logger

log = get_logger(__name__)


def describe_exit(code: int) -> str:
    """Return an exit code, or (negative) a signal, as text."""
    return f"signal {_signal_name(-code)}" if code < 0 else f"exit code {code}"


def _signal_name(number: int) -> str:
    """Return the name of a signal, or the number of a real-time signal."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def log_children_ended(termination: Termination, **fields: Any) -> None:
    """Log how many processes were ended."""
    counts = {"ended": len(termination.terminated), "killed": len(termination.killed)}
    if left := termination.survivors:
        log.warning("children_not_ended", **fields, **counts, left=sorted(pid for pid, _ in left))
    elif termination.terminated:
        log.info("children_ended", **fields, **counts)
