"""
The exit codes of processes, and how the log describes the end of one.

Decides also how long after its time limit a task is overdue, so that its process is replaced.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

from amqpworker.log.logger import get_logger

if TYPE_CHECKING:
    from amqpworker.ipc.descendants import Termination

log = get_logger(__name__)

# Exit codes of a worker process, and of the pool.
STOPPED = 0
FAILED = 1
MISCONFIGURED = 2
ABANDONED = 3

# A task is overdue, and its process is replaced, if it is still running this many seconds after its `time_limit`.
OVERDUE = 60.0


def describe_exit(code: int) -> str:
    """Return an exit code, or (negative) a signal, as text."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal
        return f"signal {-code}"


def log_children_ended(termination: Termination, **fields: Any) -> None:
    """Log how many processes were ended."""
    counts = {"ended": len(termination.terminated), "killed": len(termination.killed)}
    if left := termination.survivors:
        log.warning("children_not_ended", **fields, **counts, left=sorted(pid for pid, _ in left))
    elif termination.terminated:
        log.info("children_ended", **fields, **counts)
