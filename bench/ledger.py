"""
What the tasks of a pool report to the bench: one line each, appended to one file by all processes, a mark and a number.

A line is written in one piece (`O_APPEND`), so that none is lost or mixed with another's, and one that is written twice is
seen. Times are seconds of the monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "BENCH_LEDGER"


class Ledger:
    """The file, for the tasks and for the bench."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(self, mark: object, value: float) -> None:
        """Add a line."""
        os.write(self._descriptor, f"{mark} {value!r}\n".encode())

    def lines(self) -> list[tuple[str, float]]:
        """Return all lines, in the order in which they were written."""
        pairs = (line.split() for line in self.path.read_text().splitlines())
        return [(mark, float(value)) for mark, value in pairs]

    def count(self) -> int:
        """Return how many lines there are, which is faster than reading the lines."""
        return self.path.read_bytes().count(b"\n")
