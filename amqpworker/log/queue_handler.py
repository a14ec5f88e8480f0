"""
The way of log lines that threads with a connection write: another thread hands them to the handlers.

A handler may wait: for its lock, for a disk, for a message that it sends itself. A thread with a connection must not.
Lines keep their order and the time at which they were written; so many wait at most, and what is dropped is counted.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import traceback
from collections import deque

__all__ = ["LogQueue", "report_failure"]

MOST_WAITING = 10_000


class LogQueue:
    """
    The lines that wait for a handler, and the thread that hands them on: it ends with the last, and the next starts another.

    The lock is held for moments only, and never while a handler is called. It is re-entrant, since a finalizer may log.
    """

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._lines: deque[logging.LogRecord] = deque()
        self._running = False
        self._dropped = 0

    def put(self, record: logging.LogRecord) -> None:
        """Have a line handed to the handlers of its logger."""
        if self._process != os.getpid():
            # What waited when this process was forked is written by its parent.
            self._begin()
        with self._lock:
            if len(self._lines) >= MOST_WAITING:
                self._dropped += 1
                return
            self._lines.append(record)
            if self._running:
                return
            self._running = True
        try:
            threading.Thread(target=self._run, name="amqpworker-log", daemon=True).start()
        except RuntimeError:  # no thread can be started, as at the interpreter's exit: `flush` writes them
            self._running = False

    def flush(self, timeout: float) -> bool:
        """Return once all lines are written; false if they are not, in time."""
        if self._process != os.getpid():
            return True
        until = time.monotonic() + timeout
        pause = threading.Event()
        while self._running:
            if time.monotonic() >= until:
                return False
            pause.wait(0.002)
        # Another thread may take the last one away meanwhile.
        with contextlib.suppress(IndexError):
            while True:
                self._write(self._lines.popleft())
        return True

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._lines:
                    self._running = False
                    return
                record = self._lines.popleft()
            self._write(record)

    def _write(self, record: logging.LogRecord) -> None:
        dropped, self._dropped = self._dropped, 0
        if dropped:
            hand_on(logging.makeLogRecord(DROPPED | {"args": (dropped,)}))
        hand_on(record)


DROPPED = {
    "name": "amqpworker.log.logger",
    "levelno": logging.WARNING,
    "levelname": "WARNING",
    "msg": "log_lines_dropped: %d lines before this one",
}


def hand_on(record: logging.LogRecord) -> None:
    """Have a line written by the handlers of its logger; whatever a filter of the service raises ends with it."""
    try:
        logging.getLogger(record.name).handle(record)
    except BaseException:  # noqa: BLE001 - no line may be the end of the thread that writes those after it
        report_failure()


def report_failure() -> None:
    """Show what a filter has raised, as `logging.Handler.handleError` does, which is not asked about filters."""
    if logging.raiseExceptions:
        with contextlib.suppress(Exception):
            traceback.print_exc()
