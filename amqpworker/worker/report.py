"""
What a worker process tells its parent: that it is ready, that it consumes, why it never will, and how it ended.

Decides the exit codes, and the lines on the pipe between the two: one JSON object each, small enough to be written in one piece.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Literal

__all__ = ["ABANDONED", "MISCONFIGURED", "STOPPED", "Report", "Reporter", "reports_in"]

# Exit codes of a worker process, and of the pool.
STOPPED = 0
MISCONFIGURED = 2
ABANDONED = 3

MOST_TEXT = 500


@dataclass(frozen=True, slots=True)
class Report:
    """
    One thing to tell.

    `ready`: the app is loaded, signals are listened to, and stopping takes up to `drain_timeout` seconds.
    `consuming`: the broker has confirmed a first consumer. `misconfigured`: `text` tells why nothing will ever run.
    """

    event: Literal["ready", "consuming", "misconfigured"]
    drain_timeout: float = 0.0
    text: str = ""


class Reporter:
    """The process's end of the pipe; without one (`None`) nothing is told."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        if descriptor is not None:
            # What a task starts must not hold it.
            os.set_inheritable(descriptor, False)

    def tell(self, report: Report) -> bool:
        """Write a report; false where nobody reads it."""
        if self._descriptor is None:
            return False
        fields = {**asdict(report), "text": report.text[:MOST_TEXT]}
        with suppress(OSError):
            os.write(self._descriptor, json.dumps(fields).encode() + b"\n")
            return True
        return False


def reports_in(data: bytes) -> tuple[list[Report], bytes]:
    """Return the reports that have come whole, and the beginning of the next."""
    *lines, rest = data.split(b"\n")
    return [Report(**json.loads(line)) for line in lines], rest
