"""
The pools that a supervisor runs, each with any number of processes that have the same options.

Decides which options concern the supervisor. They are checked already (`worker/options.py`, `scheduler/scheduler_options.py`),
and arrive as JSON. A scheduler is a pool of a single process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

HOUR = 3600
MIB = 1024 * 1024

ProcessKind: TypeAlias = Literal["worker", "scheduler"]
PROGRAMS: Mapping[ProcessKind, str] = {
    "worker": "amqpworker.worker.process",
    "scheduler": "amqpworker.scheduler",
}


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
    app and entered its lifespan within `start_timeout` seconds. `kind` is which program the processes run.
    """

    name: str
    options: Mapping[str, Any]
    slots: int
    kind: ProcessKind = "worker"

    @property
    def program(self) -> str:
        """The module that each process runs."""
        return PROGRAMS[self.kind]

    @property
    def processes(self) -> int:
        """How many processes the pool has."""
        return int(self.options.get("processes", 1))

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
        """When a process is replaced; a scheduler has no such options."""
        hours, mebibytes = self.options.get("max_hours"), self.options.get("max_memory")
        return Recycling(self.options.get("max_tasks"), hours and hours * HOUR, mebibytes and mebibytes * MIB)
