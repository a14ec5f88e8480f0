"""
The last step of a log line: written where it can be, let go where not.

A closed or full sink must not end the process, and one that nobody reads (a pipe whose reader hangs, a terminal
stopped by Ctrl-S) must not hold up the thread that keeps the connection alive: after a moment lines are dropped until
some are taken again, and their number is told. What a line looks like is left to `format`.
"""

from __future__ import annotations

import logging
import os
import select
from typing import TextIO

from amqpworker.errors import TimeLimitExceeded
from amqpworker.log.redaction import redact_text

__all__ = ["LineHandler"]

MOMENT = 0.25
"""Seconds that the first line waits for a reader; those after it do not wait at all."""

PIECE = select.PIPE_BUF
"""Bytes that a pipe which is ready for writing takes without blocking."""


class LineHandler(logging.Handler):
    """
    A handler for one stream; `None` (standard error was closed) takes everything and shows nothing.

    It writes to the file beneath the stream: what a stream of Python could not write it keeps, tries again when the
    interpreter ends, and then changes the exit code.
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
        """Write one line; no failure leaves this method, except for the time limit of the task that writes it."""
        if self._stream is None or getattr(self._stream, "closed", False):
            return  # the number of a closed file may belong to another one by now
        try:
            line = self.format(record)
        except TimeLimitExceeded:
            raise  # the time limit of the task that writes it: not a failure of this line
        except Exception as error:  # noqa: BLE001 - arguments that do not fit their text, a renderer that fails
            line = f"{record.name}: a line that cannot be shown ({type(error).__name__}): {_raw(record)}"
        try:
            self._write_or_drop(line + "\n")
        except (OSError, ValueError):
            self._dropped += 1

    def _write_or_drop(self, line: str) -> None:
        if not (self._noted_loss() and self._write(line)):
            self._dropped += 1

    def _noted_loss(self) -> bool:
        """Write how many lines are missing here, if any are; no line goes before that."""
        if self._dropped:
            notice = f"amqpworker.log.logger: {self._dropped} lines before this one could not be written\n"
            if not (self._takes(0) and self._write(notice)):
                return False
            self._dropped = 0
        return True

    def _takes(self, wait: float) -> bool:
        return self._file is None or bool(self._poll.poll(wait * 1000))

    def _write(self, text: str) -> bool:
        assert self._stream is not None
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        # What could be written of a line only in part stays a line of its own.
        data = (f"\n{text}" if self._torn else text).encode(encoding, "backslashreplace")
        if self._file is None:
            self._stream.write(data.decode(encoding))
            self._stream.flush()
            return True
        while data:
            if not self._takes(0 if self._dropped else MOMENT):
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
