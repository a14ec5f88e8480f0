"""
The places of a pool, the worker processes in them, and the changes that are to come.

Decides when a place whose process has died is filled again, and that places change one after the other. What a change
does, and which process ends when, is `fleet`'s.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal, TypeAlias

__all__ = ["Change", "Changes", "Kind", "Place", "Pool", "Process", "Stage"]

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
STEADY_SECONDS = 10.0

Kind: TypeAlias = Literal["reload", "recycle", "retire"]


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

    `wanted` tells that its end is, `problem` why it never ran or is killed.
    """

    serial: int
    place: Place
    generation: int
    started: float
    ready_by: float
    stage: Stage = Stage.STARTING
    consumed: bool = False
    drain_timeout: float | None = None
    kill_at: float | None = None
    wanted: bool = False
    problem: str = ""

    @property
    def starts(self) -> bool:
        """Whether it is still to become ready in time."""
        return self.stage is Stage.STARTING and self.kill_at is None

    @property
    def consumes(self) -> bool:
        """Whether it consumes, and is not to be killed for having stalled."""
        return self.stage is Stage.CONSUMING and self.kill_at is None


@dataclass(slots=True, eq=False)
class Place:
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
    """Places that are filled alike; `up` once a process of it has consumed."""

    name: str
    places: list[Place] = field(default_factory=list)
    up: bool = False

    def startable(self) -> list[Place]:
        """Return the places to fill: the first goes ahead, so that a mistake is told once."""
        return self.places if self.up else self.places[:1]


@dataclass(slots=True, eq=False)
class Change:
    """One place that is to get another process than `process`, or to go."""

    place: Place
    process: Process | None
    kind: Kind
    reason: str
    failures: int = 0


class Changes:
    """What is to change: one at a time (`current`), the others wait for their turn."""

    def __init__(self) -> None:
        self.current: Change | None = None
        self._waiting: deque[Change] = deque()

    def add(self, change: Change, urgent: bool = False) -> None:
        """Note what is to change, unless such a change waits already."""
        if all((one.place, one.kind) != (change.place, change.kind) for one in self._waiting):
            if urgent:
                self._waiting.appendleft(change)
            else:
                self._waiting.append(change)

    def pending(self) -> list[Change]:
        """Return everything that is to change."""
        return [*([self.current] if self.current else []), *self._waiting]

    def take(self, is_due: Callable[[Change], bool]) -> Change | None:
        """Return the first that is due, which becomes the current one, None where one is under way or none is due."""
        change = next((one for one in self._waiting if is_due(one)), None) if self.current is None else None
        if change is not None:
            self._waiting.remove(change)
            self.current = change
        return change

    def next_due(self, now: float) -> float | None:
        """Return when the next has its turn, None where nothing waits for a time to come."""
        due = [one.place.start_at for one in self._waiting if one.place.start_at > now]
        return min(due, default=None) if self.current is None else None

    def put_back(self) -> None:
        """Have the current one wait once more."""
        change, self.current = self.current, None
        if change is not None:
            self._waiting.appendleft(change)

    def drop(self, kind: Kind) -> None:
        """Forget changes of a kind."""
        self._waiting = deque(one for one in self._waiting if one.kind != kind)
        if self.current is not None and self.current.kind == kind:
            self.current = None
