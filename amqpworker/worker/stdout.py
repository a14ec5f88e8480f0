"""
What tasks print: it appears line by line, and no task fails if no process reads it.

Decides what happens to what cannot be written, to a pipe whose reader has ended or a full disk: it is dropped, as a log line
is in `writer`, and one line of the log reports that.
"""

from __future__ import annotations

import io
import select
import sys
from contextlib import suppress
from typing import Any

from amqpworker.log.logger import get_logger

log = get_logger(__name__)

# A time limit of the task can be raised in between.
POLL_SECONDS = 1.0


class Output(io.FileIO):
    """The bytes of a standard stream: what cannot be written is dropped, and nothing is raised."""

    def __init__(self, descriptor: int, stream: str) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.stream = stream
        self._lost = False

    def write(self, data: Any) -> int:
        """Write all of it, and wait for a slow reader."""
        view = memoryview(data).cast("B")
        written = 0
        try:
            while written < len(view):
                count = super().write(view[written:])
                if count is None:  # another process made it non-blocking, and it is full
                    _wait_for_room(self.fileno())
                else:
                    written += count
        except OSError as error:
            if not self._lost:
                self._lost = True
                log.warning(
                    "output_lost", stream=self.stream, reason=error.strerror, effect="what is printed is dropped"
                )
        return len(view)


def _wait_for_room(descriptor: int) -> None:
    waiting = select.poll()
    waiting.register(descriptor, select.POLLOUT)
    waiting.poll(POLL_SECONDS * 1000)


def print_by_line() -> None:
    """Show each printed line at once, and let no print fail; called before anything is printed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, io.TextIOWrapper):
            continue  # closed from the beginning: `print` does nothing
        with suppress(OSError, ValueError):
            text = io.TextIOWrapper(
                Output(stream.fileno(), name),
                encoding=stream.encoding,
                errors="backslashreplace",
                line_buffering=True,
            )
            # Nothing is left in it, and code that holds it may continue to use it.
            stream.flush()
            setattr(sys, name, text)
            setattr(sys, f"__{name}__", text)
