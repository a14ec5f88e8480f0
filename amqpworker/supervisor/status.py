"""
The status of a supervisor and its processes at one moment, for systemd, health checks and users.

Decides the numbers and the texts; nothing here queries the system.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from amqpworker.ipc.recorder import Counts, Gauges, Recording, Running
from amqpworker.log.terminal import printable
from amqpworker.supervisor.fleet import Fleet
from amqpworker.supervisor.notify import Condition
from amqpworker.supervisor.slots import FleetProcess, Stage

MAX_ERRORS = 10
MAX_REASON = 200
# The stages in which a process that does not consume waits for the broker.
WAITING = frozenset({Stage.READY.value, Stage.CONSUMING.value})


@dataclass(frozen=True, slots=True)
class Observation:
    """
    What the last check of a process has found.

    `stalled` is why it has stalled ("" if it has not), `waits` what it waits for until it consumes.
    """

    pid: int
    memory: int
    recording: Recording | None
    stalled: str = ""
    waits: str = ""


@dataclass(slots=True)
class History:
    """What a supervisor remembers: the counts of processes that have ended, the latest errors, and the app of each pool."""

    counts: Counts = field(default_factory=Counts)
    errors: deque[str] = field(default_factory=lambda: deque(maxlen=MAX_ERRORS))
    apps: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunView:
    """
    A task that runs; times are seconds since the epoch.

    `limit` is the end of its time limit, 0 if it has none, `over` for how many seconds it has been beyond that.
    """

    slot: int
    key: str
    task: str
    attempt: int
    started: float
    limit: float
    over: float


@dataclass(frozen=True, slots=True)
class ProcessView:
    """
    One worker process; times are seconds, `started` counts from the epoch as those of `running` do.

    `isolated` is how many isolated processes it uses, `waiting_suspects` how many messages wait for one, `unconfirmed` how many
    retries and dead letters the broker has not confirmed in time. `waits` is what it waits for until it consumes from all
    its queues, and why.
    """

    pool: str
    number: int
    pid: int
    stage: str
    generation: int
    started: float
    consuming: bool
    stalled: str
    memory: int
    counts: Counts
    running: tuple[RunView, ...]
    isolated: int
    waiting_suspects: int
    unconfirmed: int
    waits: str = ""


@dataclass(frozen=True, slots=True)
class PoolView:
    """One pool: how many processes it should have, how many of them consume, and their app (MODULE:APP)."""

    name: str
    wanted: int
    consuming: int
    app: str = ""


@dataclass(frozen=True, slots=True)
class SupervisorStatus:
    """The whole supervisor; `counts` includes processes that have ended, `errors` are the latest ones."""

    pid: int
    at: float
    wanted: int
    generation: int
    reloading: bool
    stopping: bool
    counts: Counts
    processes: tuple[ProcessView, ...]
    errors: tuple[str, ...] = ()
    pools: tuple[PoolView, ...] = ()

    @property
    def consuming(self) -> int:
        """How many processes consume."""
        return sum(one.consuming for one in self.processes)

    @property
    def running(self) -> int:
        """How many tasks run."""
        return sum(len(one.running) for one in self.processes)


def status_of(
    fleet: Fleet, observations: dict[int, Observation], history: History, clocks: tuple[float, float]
) -> SupervisorStatus:
    """Return the status; `clocks` is the current time, since the epoch and by the monotonic clock."""
    now, monotonic = clocks
    views = tuple(
        _view_of(process, observations[process.serial], now - (monotonic - process.started), now)
        for process in fleet.processes.values()
        if process.serial in observations
    )
    counts = history.counts
    for one in views:
        counts = counts.plus(one.counts)
    return SupervisorStatus(
        pid=os.getpid(),
        at=now,
        wanted=fleet.size,
        generation=fleet.generation,
        reloading=fleet.reloading,
        stopping=fleet.stopping is not None,
        counts=counts,
        processes=views,
        errors=tuple(history.errors),
        pools=tuple(
            PoolView(
                pool.name,
                len(pool.slots),
                sum(one.consuming for one in views if one.pool == pool.name),
                history.apps.get(pool.name, ""),
            )
            for pool in fleet.pools.values()
        ),
    )


def _view_of(process: FleetProcess, observation: Observation, started: float, now: float) -> ProcessView:
    """Return the view of one process; the times are seconds since the epoch."""
    recording = observation.recording
    gauges = Gauges() if recording is None else recording.gauges
    running = () if recording is None else recording.running
    return ProcessView(
        process.slot.pool,
        process.slot.number,
        observation.pid,
        process.stage.value,
        process.generation,
        started,
        recording is not None and recording.consuming and process.stage is Stage.CONSUMING,
        observation.stalled,
        observation.memory,
        Counts() if recording is None else recording.counts,
        tuple(
            RunView(one.slot, one.key, one.task, one.attempt, one.started, one.limit, _seconds_over(one, now))
            for one in running
        ),
        gauges.isolated,
        gauges.waiting_suspects,
        gauges.unconfirmed,
        observation.waits,
    )


def _seconds_over(running: Running, now: float) -> float:
    """Return for how many seconds a task has been beyond its time limit, 0 if it is not."""
    return max(0.0, now - running.limit) if running.limit else 0.0


def condition_of(state: SupervisorStatus) -> Condition:
    """Return the part of a status that matters to systemd."""
    waiting = len(_waiting_in(state))
    return Condition(
        wanted=state.wanted,
        alive=len(state.processes),
        healthy=sum(not one.stalled for one in state.processes),
        waiting=waiting,
        consuming=state.consuming,
        reloading=state.reloading,
        stopping=state.stopping,
        status=status_line(state),
    )


def status_line(state: SupervisorStatus) -> str:
    """Return a status as a short line."""
    parts = [
        f"{state.consuming}/{state.wanted} consuming",
        f"{state.running} running",
        f"{_rounded(state.counts.done)} done",
    ]
    if state.counts.dead:
        parts.append(f"{_rounded(state.counts.dead)} dead")
    if state.stopping:
        parts.insert(0, "stopping")
    elif state.reloading:
        parts.insert(0, "reloading")
    elif waiting := _waiting_in(state):
        ready = all(one.stage == Stage.READY.value for one in waiting)
        unknown = "the broker" if ready else "the broker or its queues"
        waits = next((one.waits for one in waiting if one.waits), unknown)
        if len(waiting) == len(state.processes):
            parts.insert(0, f"waiting for {_shorten(waits)}")
        elif any(one.waits for one in waiting):
            parts.append(f"{len(waiting)} waiting for {_shorten(waits)}")
    return ", ".join(parts)


def _waiting_in(state: SupervisorStatus) -> list[ProcessView]:
    """Return the processes that have started and do not consume."""
    return [one for one in state.processes if one.stage in WAITING and not one.consuming]


def _shorten(waits: str) -> str:
    """Return what a process waits for as a part of the status line."""
    text = printable(" ".join(waits.split())).rstrip(".")
    return text if len(text) <= MAX_REASON else f"{text[:MAX_REASON]}…"


def _rounded(count: int) -> str:
    """Return a count as short text: 999, 12 k, 3.4 M."""
    if count < 10_000:
        return str(count)
    if count < 1_000_000:
        return f"{count // 1000} k"
    return f"{count / 1_000_000:.1f} M"
