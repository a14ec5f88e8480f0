"""A program of ours as a process of its own, watched by its log."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.support import wait_until


def whole_lines(path: Path) -> list[str]:
    """Return the lines that a program has written, without a last one that is still half written; none without a file."""
    if not path.exists():
        return []
    whole, _, _ = path.read_text(errors="replace").rpartition("\n")
    return whole.splitlines()


class Program:
    """A process that logs lines of JSON into a file."""

    def __init__(self, process: subprocess.Popen[Any], path: Path) -> None:
        self.process = process
        self._path = path

    @property
    def log(self) -> str:
        return self._path.read_text(errors="replace")

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the log lines of an event, as far as they are written whole."""
        lines = [json.loads(line) for line in whole_lines(self._path) if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    def wait_for(self, name: str, count: int = 1, timeout: float = 20.0) -> list[dict[str, Any]]:
        """Return the log lines of an event, once there are `count`."""
        try:
            return wait_until(
                lambda: found if len(found := self.events(name)) >= count else [], timeout, f"{count} lines {name!r}"
            )
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log[-4000:]}") from None

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self, timeout: float = 20.0) -> int:
        """Wait for its end and return the exit code."""
        return self.process.wait(timeout)
