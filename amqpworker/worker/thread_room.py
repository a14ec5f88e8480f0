"""
A worker process on a machine that has no room for its threads: a full process table, or a limit of the service.

Decides that this is not a defect of ours: one line in the log, and an exit code after which the process is started again.
"""

from __future__ import annotations

from collections.abc import Callable

from amqpworker.ipc.exit_status import FAILED
from amqpworker.lifecycle import ThreadLimitReached
from amqpworker.log.logger import get_logger

# Not `__name__`: its lines are the process's.
log = get_logger("amqpworker.worker.process")


def room_permitting(run: Callable[[], int]) -> int:
    """Run a process and return its exit code; if it cannot start all its threads, that of a failure."""
    try:
        return run()
    except ThreadLimitReached as error:
        log.error("thread_not_started", reason=error.strerror, effect="this process ends, and is started again later")
        return FAILED
