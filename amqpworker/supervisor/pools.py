"""
The pools that a supervisor runs, each with any number of worker processes that have the same options.

Decides which options concern the supervisor. They are checked already (`worker/options.py`), and arrive as JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

HOUR = 3600
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Recycling:
    """When a worker process is replaced: after this many tasks or seconds, or above this many bytes of memory."""

    tasks: int | None = None
    seconds: float | None = None
    memory: int | None = None


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """
    One pool: its name, the options of the pool and of each process, and how many tasks each can run at once (`slots`).

    A process that makes no progress for `stall_timeout` seconds is killed and replaced; so is one that has not loaded its
    app and entered its lifespan within `start_timeout` seconds.
    """

    name: str
    options: Mapping[str, Any]
    slots: int

    @property
    def processes(self) -> int:
        """How many processes the pool has."""
        return int(self.options["processes"])

    @property
    def stall_timeout(self) -> float:
        """How many seconds a process may make no progress."""
        return float(self.options["stall_timeout"])

    @property
    def start_timeout(self) -> float:
        """How many seconds a process has to become ready."""
        return float(self.options["start_timeout"])

    @property
    def recycling(self) -> Recycling:
        """When a process is replaced."""
        hours, mebibytes = self.options["max_hours"], self.options["max_memory"]
        return Recycling(self.options["max_tasks"], hours and hours * HOUR, mebibytes and mebibytes * MIB)
