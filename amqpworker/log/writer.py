"""
The last step of a log line: it is written, or dropped if that is not possible.

A closed or full stream must not end the process, and one without a reader (a pipe whose reader hangs, a terminal stopped by
Ctrl-S) must not block a runner thread: after `MAX_WAIT` lines are dropped until the stream takes some again, and a line
`log_lines_dropped` reports their number.

The standard library's `StreamHandler` is not used: it blocks once a pipe is full, after 64 KiB, for as long as nothing reads it.
"""

from __future__ import annotations

import logging
import os
import select
from typing import TextIO

from amqpworker.errors import TimeLimitExceeded
from amqpworker.log.record import lines_dropped
from amqpworker.log.redaction import redact_text

MAX_WAIT = 0.25
"""Seconds that the first line waits for a reader; the next lines do not wait at all."""

PIECE = select.PIPE_BUF
"""Bytes that a pipe which is ready for writing takes without blocking."""


class LineHandler(logging.Handler):
    """
    A handler that writes to the file beneath one stream.

    `None`, for a standard error that was closed, takes everything and shows nothing.
    """

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__()
        self._stream = stream
        self._dropped = 0
        self._torn = False
        self._file: int | None = None
        self._poll = select.poll()
        try:
            self._file = None if stream is None else stream.fileno()
        except (AttributeError, OSError, ValueError):
            return
        if self._file is not None:
            self._poll.register(self._file, select.POLLOUT)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line; the only exception that leaves this method is the time limit of the task that writes it."""
        if self._stream is None or getattr(self._stream, "closed", False):
            return  # the descriptor of a closed file may be in use for another one
        try:
            line = self.format(record)
        except TimeLimitExceeded:
            raise  # of the task that writes this line
        except Exception as error:  # noqa: BLE001 - arguments that do not fit their format, a renderer that fails
            line = f"{record.name}: a line that cannot be shown ({type(error).__name__}): {_raw(record)}"
        try:
            self._write_or_drop(line + "\n")
        except (OSError, ValueError):
            self._dropped += 1

    def _write_or_drop(self, line: str) -> None:
        if not (self._reported_loss() and self._write(line)):
            self._dropped += 1

    def _reported_loss(self) -> bool:
        """Write how many lines are missing here, if any are; no line is written before that."""
        if self._dropped:
            if not (self._is_writable(0) and self._write(self.format(lines_dropped(self._dropped)) + "\n")):
                return False
            self._dropped = 0
        return True

    def _is_writable(self, wait: float) -> bool:
        return self._file is None or bool(self._poll.poll(wait * 1000))

    def _write(self, text: str) -> bool:
        assert self._stream is not None
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        # A line that was written in part is ended first.
        data = (f"\n{text}" if self._torn else text).encode(encoding, "backslashreplace")
        if self._file is None:
            self._stream.write(data.decode(encoding))
            self._stream.flush()
            return True
        while data:
            if not self._is_writable(0 if self._dropped else MAX_WAIT):
                return False
            data = data[os.write(self._file, data[:PIECE]) :]
            self._torn = bool(data)
        return True


def _raw(record: logging.LogRecord) -> str:
    try:
        return redact_text(ascii(record.msg)[:200])
    except TimeLimitExceeded:
        raise
    except Exception:  # noqa: BLE001 - the value that made the line fail
        return "…"
