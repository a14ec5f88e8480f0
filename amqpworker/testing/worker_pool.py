"""
A pool of worker processes for a test, as `amqpworker worker` starts it.

Decides when it counts as started, and that its log lines are log records of the test.
"""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any

from amqpworker.testing.moved_app import POOLED
from amqpworker.testing.waiting import wait_until

START_TIMEOUT = 60.0
STOP_TIMEOUT = 60.0
LAST_LINES = 20
STANDARD_FIELDS = ("timestamp", "level", "event", "logger", "exception")


class WorkerPool:
    """Worker processes under a supervisor; making the object starts nothing."""

    def __init__(self, processes: int, threads: int, queues: Sequence[str] = ()) -> None:
        self._processes = processes
        selected = [part for queue in queues for part in ("-q", queue)]
        numbers = ["-p", str(processes), "-t", str(threads)]
        # Nothing of the test may read what the pool prints to its output.
        self._command = [sys.executable, "-m", "amqpworker", "worker", POOLED, *numbers, *selected, "--log-json"]
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._ready = 0
        self._last: deque[str] = deque(maxlen=LAST_LINES)

    def start(self) -> None:
        """Start the processes, and return once each of them consumes; raises AssertionError with the log's end otherwise."""
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            self._command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace"
        )
        self._reader = threading.Thread(target=self._read, name="worker-pool-log", daemon=True)
        self._reader.start()
        wait_until(lambda: self._ready >= self._processes or self.code is not None, START_TIMEOUT, "the pool consumes")
        if self.code is not None:
            self._reader.join(5.0)
            raise AssertionError("The worker pool did not start:\n" + "\n".join(self._last))

    @property
    def code(self) -> int | None:
        """Its exit code, None while it runs."""
        return None if self._process is None else self._process.poll()

    def stop(self) -> int:
        """Stop as SIGTERM does, and return the exit code; a pool that does not stop is killed, and its code is -9."""
        assert self._process is not None
        assert self._reader is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._reader.join(5.0)
        return code

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                self._last.append(line.rstrip())
                fields = _fields_of(line)
                self._ready += fields["event"] == "process_started"
                logger = logging.getLogger(str(fields.get("logger", "amqpworker")))
                record = record_of(fields, logger.name)
                if logger.isEnabledFor(record.levelno):
                    logger.handle(record)


def _fields_of(line: str) -> dict[str, Any]:
    """Return the fields of a line; one that is not JSON was printed by other code."""
    try:
        fields = json.loads(line)
    except ValueError:
        fields = None
    return fields if isinstance(fields, dict) and "event" in fields else {"event": line.rstrip()}


def record_of(fields: dict[str, Any], logger: str) -> logging.LogRecord:
    """Return a line of a worker process as a log record of this process, with its other fields after the event."""
    level = logging.getLevelNamesMapping().get(str(fields.get("level", "info")).upper(), logging.INFO)
    rest = "".join(f" {name}={value!r}" for name, value in fields.items() if name not in STANDARD_FIELDS)
    text = "\n".join(part for part in (f"{fields['event']}{rest}", fields.get("exception")) if part)
    return logging.LogRecord(logger, level, "worker", 0, text, None, None)
