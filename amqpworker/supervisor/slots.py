"""
The places of a pool, and the worker processes in them.

Decides when a place whose process has died is filled again, and which places of a pool may be filled at all. Which process
ends when is `fleet`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from amqpworker.supervisor.fleet_events import Oversize

__all__ = ["Pool", "Process", "Slot", "Stage"]

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
STEADY_SECONDS = 10.0


class Stage(Enum):
    """How far a worker process has come."""

    STARTING = "starting"
    READY = "ready"
    CONSUMING = "consuming"
    DRAINING = "draining"
    KILLED = "killed"


@dataclass(slots=True, eq=False)
class Process:
    """
    One worker process; it is to be ready at `ready_by`, and to be killed at `kill_at`, where that is set.

    `wanted` tells that its end is, `problem` why it never ran or is killed. `misconfigured`: it has reported a mistake in
    the configuration. `recycle_at`: when it is replaced at the earliest, set once it is too large.
    """

    serial: int
    place: Slot
    generation: int
    started: float
    ready_by: float
    stage: Stage = Stage.STARTING
    consumed: bool = False
    drain_timeout: float | None = None
    kill_at: float | None = None
    wanted: bool = False
    problem: str = ""
    misconfigured: bool = False
    recycle_at: float | None = None

    @property
    def starts(self) -> bool:
        """Whether it is still to become ready in time."""
        return self.stage is Stage.STARTING and self.kill_at is None

    @property
    def consumes(self) -> bool:
        """Whether it consumes, and is not to be killed for having stalled."""
        return self.stage is Stage.CONSUMING and self.kill_at is None


@dataclass(slots=True, eq=False)
class Slot:
    """One place of a pool: the process that holds it, and the one that is to follow."""

    pool: str
    number: int
    process: Process | None = None
    successor: Process | None = None
    start_at: float = 0.0
    deaths: int = 0

    def vacate(self, process: Process) -> None:
        """Take out a process that is gone; one that was to follow moves up."""
        if self.successor is process:
            self.successor = None
        elif self.process is process:
            self.process, self.successor = self.successor, None

    def put_off(self, died: Process, now: float, jitter: Callable[[], float]) -> float:
        """
        Plan the next start after a death: at once after a process that has consumed; return the seconds until then.

        Whatever dies young again and again is started ever more rarely, once in a minute at last.
        """
        if died.consumed and now - died.started >= STEADY_SECONDS:
            self.deaths = 0
        doublings = self.deaths - 1 if died.consumed else self.deaths
        pause = 0.0 if doublings < 0 else min(FIRST_PAUSE * 2.0 ** min(doublings, 10), LONGEST_PAUSE) * jitter()
        self.deaths += 1
        self.start_at = now + pause
        return pause


@dataclass(slots=True)
class Pool:
    """
    Places that are filled alike.

    It is `up` once a process of it has consumed; `outgrown` processes in a row became too large soon after their start.
    """

    name: str
    places: list[Slot] = field(default_factory=list)
    up: bool = False
    outgrown: int = 0

    def recycle_at(self, process: Process, oversize: Oversize | None, now: float, jitter: Callable[[], float]) -> float:
        """
        Return when a process that is due for recycling may be replaced: at once, unless it became too large soon after its start.

        Then its successor would most likely be as large: each waits longer than the one before, up to a minute.
        """
        if oversize is None:
            return now
        if process.recycle_at is None:
            soon = oversize.at_start or now - process.started < STEADY_SECONDS
            self.outgrown = self.outgrown + 1 if soon else 0
            pause = min(FIRST_PAUSE * 2.0 ** min(self.outgrown, 10), LONGEST_PAUSE) * jitter()
            process.recycle_at = now + pause if soon else now
        return process.recycle_at

    def startable(self) -> list[Slot]:
        """Return the places to fill: the first goes ahead, so that a mistake is told once."""
        return self.places if self.up else self.places[:1]

    def consumes_without(self, place: Slot) -> bool:
        """Tell whether another place than this has a process that consumes."""
        others = [one.process for one in self.places if one is not place]
        return any(one is not None and one.consumes for one in others)
