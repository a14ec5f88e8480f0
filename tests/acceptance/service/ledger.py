"""
What happened, on the disk before anything else happens: JSON lines, appended and synced one by one.

Several processes write into one file: a line is one `write` in append mode. It begins with a line break too, so that
a line that was torn by a kill spoils no other.
"""

from __future__ import annotations

import json
import os
import time
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


class Reader:
    """Follows a ledger: each look reads only what is new."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._begun = b""
        self._by_kind: dict[str, list[Line]] = {}

    def by_kind(self) -> dict[str, list[Line]]:
        """Return what was written so far, by event, without what a kill tore."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            new = file.read()
        self._offset += len(new)
        *texts, self._begun = (self._begun + new).split(b"\n")
        for text in texts:
            if (line := read(text)) is not None:
                self._by_kind.setdefault(line["event"], []).append(line)
        return self._by_kind


def read(text: bytes) -> Line | None:
    """Read one line; None where it is empty or torn."""
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) else None
