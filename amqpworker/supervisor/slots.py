"""
The slots of a pool, and the worker processes in them.

Decides when a slot whose process has died gets another process, and what the exit code of a worker process means: a task may
end its process with any code (`os._exit`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from amqpworker.ipc.exit_status import ABANDONED, MISCONFIGURED, STOPPED
from amqpworker.lifecycle import backoff

FIRST_BACKOFF = 1.0
MAX_BACKOFF = 60.0
STABLE_AFTER = 10.0


class Stage(Enum):
    """How far a worker process has come."""

    STARTING = "starting"
    READY = "ready"
    CONSUMING = "consuming"
    DRAINING = "draining"
    KILLED = "killed"


@dataclass(frozen=True, slots=True)
class Oversize:
    """The memory of a process and its limit, in MiB; `at_start`: it never consumed below that limit."""

    memory: int
    limit: int
    at_start: bool


@dataclass(slots=True, eq=False)
class FleetProcess:
    """
    One worker process. It must be ready by `ready_by`, and is killed at `kill_at` if that is set.

    `exit_expected` is true once it was asked to end, or has announced its end. `reason` is why it never ran or is killed.
    `misconfigured`: it has reported an error in the configuration. `recycle_at`: the earliest time to replace it, set once
    it is too large.
    """

    serial: int
    slot: Slot
    generation: int
    started: float
    ready_by: float
    stage: Stage = Stage.STARTING
    consumed: bool = False
    drain_timeout: float | None = None
    kill_at: float | None = None
    exit_expected: bool = False
    reason: str = ""
    misconfigured: bool = False
    recycle_at: float | None = None

    @property
    def is_starting(self) -> bool:
        """Whether it has not become ready yet, and still has time."""
        return self.stage is Stage.STARTING and self.kill_at is None

    @property
    def is_consuming(self) -> bool:
        """Whether it consumes, and is not about to be killed because it has stalled."""
        return self.stage is Stage.CONSUMING and self.kill_at is None

    def kill_by(self, when: float) -> None:
        """Have it killed at this time, or earlier if that was planned."""
        self.kill_at = when if self.kill_at is None else min(self.kill_at, when)

    def can_never_run(self, code: int) -> bool:
        """Return whether it has ended because of an error in the configuration: only if it has reported one."""
        return self.misconfigured and code == MISCONFIGURED

    def pool_exit_code(self, code: int) -> int:
        """
        Return what its end during a stop means for the exit code of the pool, which is never a code that a task has chosen.

        A process that was still starting, or could not run, has nothing to abandon.
        """
        idle = self.drain_timeout is None or self.misconfigured
        return STOPPED if code == STOPPED or idle else ABANDONED


@dataclass(slots=True, eq=False)
class Slot:
    """One slot of a pool: its process, and the one that will replace that."""

    pool: str
    number: int
    process: FleetProcess | None = None
    replacement: FleetProcess | None = None
    start_at: float = 0.0
    deaths: int = 0

    def remove(self, process: FleetProcess) -> None:
        """Remove a process that has ended; its replacement, if there is one, takes its place."""
        if self.replacement is process:
            self.replacement = None
        elif self.process is process:
            self.process, self.replacement = self.replacement, None

    def back_off(self, died: FleetProcess, now: float, jitter: Callable[[], float]) -> float:
        """
        Schedule the next start after a death, at once if the process had consumed; return the seconds until then.

        The delay doubles, up to a minute, while processes die soon after their start.
        """
        if died.consumed and now - died.started >= STABLE_AFTER:
            self.deaths = 0
        failures = self.deaths if died.consumed else self.deaths + 1
        pause = backoff(FIRST_BACKOFF, MAX_BACKOFF, failures) * jitter()
        self.deaths += 1
        self.start_at = now + pause
        return pause


@dataclass(slots=True)
class Pool:
    """
    Slots whose processes have the same options.

    It is `up` once a process of it has consumed; `outgrown` processes in a row became too large soon after their start.
    `last_start` is the serial number of its latest process, by which pools take turns.
    """

    name: str
    slots: list[Slot] = field(default_factory=list)
    up: bool = False
    outgrown: int = 0
    last_start: int = 0

    def recycle_at(
        self, process: FleetProcess, oversize: Oversize | None, now: float, jitter: Callable[[], float]
    ) -> float:
        """
        Return when a process that is due for recycling may be replaced: at once, unless it became too large soon after its start.

        In that case its replacement will probably be as large, so each waits longer than the one before, up to a minute.
        """
        if oversize is None:
            return now
        if process.recycle_at is None:
            early = oversize.at_start or now - process.started < STABLE_AFTER
            self.outgrown = self.outgrown + 1 if early else 0
            pause = backoff(FIRST_BACKOFF, MAX_BACKOFF, self.outgrown + 1) * jitter()
            process.recycle_at = now + pause if early else now
        return process.recycle_at

    def slots_to_start(self) -> list[Slot]:
        """Return the slots to fill: at first a single one, so that a configuration error is reported once."""
        return self.slots if self.up else self.slots[:1]

    def consumes_elsewhere(self, slot: Slot) -> bool:
        """Return whether a process in another slot consumes."""
        others = [other.process for other in self.slots if other is not slot]
        return any(process is not None and process.is_consuming for process in others)
