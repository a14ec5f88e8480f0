"""
How a process of ours ends: at once, without waiting for threads that user code has left, and with all output written.

Decides how a process ends that cannot start its threads, since the system allows no more: with one line in the log instead of a
traceback, and with an exit code after which the process is started again.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from amqpworker.ipc.exit_status import FAILED
from amqpworker.lifecycle import ThreadLimitReached
from amqpworker.log.logger import flush, get_logger

log = get_logger(__name__)


def exit_code_of(run: Callable[[], int]) -> int:
    """Run a process and return its exit code; if it cannot start all its threads, that of a failure."""
    try:
        return run()
    except ThreadLimitReached as error:
        log.error("thread_not_started", reason=error.strerror, effect="this process ends, and is started again later")
        return FAILED


def exit_now(code: int) -> NoReturn:
    """End this process."""
    flush()
    flush_streams()
    os._exit(code)


def flush_streams() -> None:
    """Write what was printed."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # user code may have closed it, or it was closed from the beginning
            stream.flush()
