"""
How log lines leave an I/O thread: another thread passes them to the handlers.

A handler may wait: for its lock, for a disk, for a message that it sends itself. An I/O thread must not. Lines keep their
order and the time at which they were written; a bounded number waits, and dropped lines are counted.

The standard library's `QueueListener` is not used: its thread must be started ahead, is missing in a forked child and ends at
the first exception of a handler, and its `stop()` waits without limit for a handler that hangs (Python 3.11).
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import traceback
from collections import deque

from amqpworker.log.record import lines_dropped

MAX_WAITING = 10_000


class LogQueue:
    """
    The lines that wait for a handler, and the thread that passes them on: it ends with the last line, and the next starts another.

    The lock is never held while a handler is called. It is re-entrant, since a finalizer may log.
    """

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._lines: deque[logging.LogRecord] = deque()
        self._running = False
        self._dropped = 0

    def put(self, record: logging.LogRecord) -> None:
        """Have a record passed to the handlers of its logger."""
        if self._process != os.getpid():
            # The parent writes the lines that waited when it forked this process.
            self._reset()
        with self._lock:
            if len(self._lines) >= MAX_WAITING:
                self._dropped += 1
                return
            self._lines.append(record)
            if self._running:
                return
            self._running = True
        try:
            threading.Thread(target=self._run, name="amqpworker-log", daemon=True).start()
        except RuntimeError:  # no thread can be started, as when the interpreter exits: `flush` writes them
            self._running = False

    def flush(self, timeout: float) -> bool:
        """Return once all lines are written; false if they are not by the timeout."""
        if self._process != os.getpid():
            return True
        deadline = time.monotonic() + timeout
        pause = threading.Event()
        while self._running:
            if time.monotonic() >= deadline:
                return False
            pause.wait(0.002)
        # Another thread may take the last one meanwhile.
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
            _handle(lines_dropped(dropped))
        _handle(record)


def _handle(record: logging.LogRecord) -> None:
    """Pass a record to the handlers of its logger; an exception of a filter of the service costs this line only."""
    try:
        logging.getLogger(record.name).handle(record)
    except BaseException:  # noqa: BLE001 - the thread has to write the lines after it
        report_failure()


def report_failure() -> None:
    """Print what a filter raised, as `logging.Handler.handleError` does for handlers."""
    if logging.raiseExceptions:
        with contextlib.suppress(Exception):
            traceback.print_exc()
