"""
What happened, on the disk before anything else goes on: JSON lines, appended and synced one by one.

Several processes write into one file: a line is one `write` in append mode. It begins with a line break too, so that
a line that was torn by a kill spoils no other.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Line = dict[str, Any]


class Ledger:
    """One file of events, those of this process or of another (`pid`); safe to use from many threads and processes."""

    def __init__(self, path: Path | str, pid: int | None = None) -> None:
        self.path = Path(path)
        self._pid = os.getpid() if pid is None else pid
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, event: str, **fields: Any) -> None:
        """Write an event down; it is on the disk when this returns."""
        line = {"event": event, "pid": self._pid, "at": time.time(), **fields}
        os.write(self._file, f"\n{json.dumps(line)}\n".encode())
        os.fdatasync(self._file)

    def lines(self) -> Iterator[Line]:
        """Yield what was written so far, without what a kill tore."""
        for text in self.path.read_text(errors="replace").splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict):
                yield line
