"""
A pool of worker processes for a test, as `amqpworker worker` starts it.

Decides when it counts as started, that its log lines are log records of the test, and that it does not outlive the test's
process.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from amqpworker.testing import processes
from amqpworker.testing.moved_app import POOLED
from amqpworker.testing.waiting import wait_until

START_TIMEOUT = 60.0
STOP_TIMEOUT = 60.0
LAST_LINES = 20
STANDARD_FIELDS = ("timestamp", "level", "event", "logger", "exception")


class WorkerPool:
    """Worker processes under a supervisor; making the object starts nothing."""

    def __init__(self, size: int, threads: int, queues: Sequence[str] = ()) -> None:
        self._size = size
        self._mark = f"pool-{uuid.uuid4().hex}"
        selected = [part for queue in queues for part in ("-q", queue)]
        numbers = ["-p", str(size), "-t", str(threads)]
        self._command = [sys.executable, "-m", "amqpworker", "worker", POOLED, *numbers, *selected, "--log-json"]
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._tie: int | None = None
        self._ready = 0
        self._last: deque[str] = deque(maxlen=LAST_LINES)

    def start(self) -> None:
        """Start the processes, and return once each of them consumes; raises AssertionError with the log's end otherwise."""
        env = {**os.environ, processes.MARK: self._mark}
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            self._command, env=env, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace"
        )
        self._tie = processes.kill_with_parent(env, Path(os.devnull), [self._process.pid])
        self._reader = threading.Thread(target=self._read, name="worker-pool-log", daemon=True)
        self._reader.start()
        wait_until(lambda: self._ready >= self._size or self.code is not None, START_TIMEOUT, "the pool consumes")
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
        if self._tie is not None:
            os.close(self._tie)
            self._tie = None
        processes.end_all(self._mark)  # what its tasks have left behind, too
        self._reader.join(5.0)
        return code

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                self._last.append(line.rstrip())
                fields = fields_of(line)
                self._ready += fields["event"] == "process_started"
                logger = logging.getLogger(str(fields.get("logger", "amqpworker")))
                record = record_of(fields, logger.name)
                if logger.isEnabledFor(record.levelno):
                    logger.handle(record)


def fields_of(line: str) -> dict[str, Any]:
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
