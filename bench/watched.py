"""A program that runs while the bench measures, and is observed from outside: by its log, line by line."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, TypeVar

from bench.places import Running, SideFailed

LOOK = 0.002
"""How often the bench checks whether something has happened: no figure is more exact than this."""
PATIENCE = 30.0

T = TypeVar("T")


class Watched:
    """A program that logs JSON lines."""

    def __init__(self, processes: Running) -> None:
        self.processes = processes

    @property
    def pid(self) -> int:
        """Its first process, the supervisor of a pool."""
        return self.processes.processes[0].pid

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the log lines of an event."""
        complete = (line for line in self.processes.lines() if f'"{name}"' in line and line.endswith("}"))
        return [line for line in map(json.loads, complete) if line["event"] == name]

    def wait_for(
        self, name: str, count: int = 1, patience: float = PATIENCE, look: float = LOOK
    ) -> list[dict[str, Any]]:
        """Wait until an event was logged `count` times, and return its lines."""
        return self.until(lambda: self._at_least(name, count), f"{count} lines {name!r}", patience, look)

    def _at_least(self, name: str, count: int) -> list[dict[str, Any]] | None:
        found = self.events(name)
        return found if len(found) >= count else None

    def until(self, found: Callable[[], T | None], what: str, patience: float = PATIENCE, look: float = LOOK) -> T:
        """
        Return what `found` returns, once that is something true; it is asked every `look` seconds.

        Raises:
            SideFailed: it was not in time, or the pool has ended.
        """
        deadline = time.monotonic() + patience
        while not (value := found()):
            self.processes.check()
            if time.monotonic() > deadline:
                raise SideFailed(f"waited {patience:.0f} s in vain for {what}:\n{self.processes.tail()}")
            time.sleep(look)
        return value
