"""
How a supervisor and its processes stand at one moment: what systemd, health checks and people are told.

Decides the numbers and the words; nothing here asks the system.
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
from amqpworker.supervisor.slots import Process, Stage

__all__ = [
    "Past",
    "PoolView",
    "ProcessView",
    "RunView",
    "Seen",
    "SupervisorStatus",
    "condition",
    "overview",
    "status_line",
]

MOST_ERRORS = 10
MOST_WAITS = 200
# The stages in which a process that does not consume waits for the broker.
WAITING = frozenset({Stage.READY.value, Stage.CONSUMING.value})


@dataclass(frozen=True, slots=True)
class Seen:
    """
    What was found out about a process at the last look.

    `stalled` names the thread that hangs, `waits` is what it waits for until it consumes.
    """

    pid: int
    memory: int
    recording: Recording | None
    stalled: str = ""
    waits: str = ""


@dataclass(slots=True)
class Past:
    """What a supervisor remembers: what processes that have ended did, what went wrong lately, and the app of each pool."""

    counts: Counts = field(default_factory=Counts)
    errors: deque[str] = field(default_factory=lambda: deque(maxlen=MOST_ERRORS))
    apps: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunView:
    """
    A task that runs; times are seconds since the epoch.

    `limit` is when its time is up, 0 if it has none, and `over` for how many seconds it has been.
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

    `isolated` is how many isolated processes it uses now, `waiting_suspects` how many messages wait for one, `unconfirmed`
    how many retries and dead letters the broker has not confirmed in time. `waits` is what it waits for until it
    consumes from all its queues, and why.
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
    """One pool: how many processes it is to have, how many of them consume, and their app (MODULE:APP)."""

    name: str
    wanted: int
    consuming: int
    app: str = ""


@dataclass(frozen=True, slots=True)
class SupervisorStatus:
    """All of them; `counts` holds what processes that have ended did, too, `errors` what went wrong lately."""

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


def overview(fleet: Fleet, seen: dict[int, Seen], past: Past, clocks: tuple[float, float]) -> SupervisorStatus:
    """Return how it stands; `clocks` is the time now, since the epoch and by the monotonic clock."""
    now, monotonic = clocks
    views = tuple(
        view(process, seen[process.serial], now - (monotonic - process.started), now)
        for process in fleet.processes.values()
        if process.serial in seen
    )
    counts = past.counts
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
        errors=tuple(past.errors),
        pools=tuple(
            PoolView(
                pool.name,
                len(pool.places),
                sum(one.consuming for one in views if one.pool == pool.name),
                past.apps.get(pool.name, ""),
            )
            for pool in fleet.pools.values()
        ),
    )


def view(process: Process, seen: Seen, started: float, now: float) -> ProcessView:
    """Return the view of one process; the times are seconds since the epoch."""
    recording = seen.recording
    gauges = Gauges() if recording is None else recording.gauges
    running = () if recording is None else recording.running
    return ProcessView(
        process.place.pool,
        process.place.number,
        seen.pid,
        process.stage.value,
        process.generation,
        started,
        recording is not None and recording.consuming and process.stage is Stage.CONSUMING,
        seen.stalled,
        seen.memory,
        Counts() if recording is None else recording.counts,
        tuple(
            RunView(one.slot, one.key, one.task, one.attempt, one.started, one.limit, over(one, now)) for one in running
        ),
        gauges.isolated,
        gauges.waiting_suspects,
        gauges.unconfirmed,
        seen.waits,
    )


def over(running: Running, now: float) -> float:
    """Return for how many seconds a task has been beyond its limit, 0 if it is not."""
    return max(0.0, now - running.limit) if running.limit else 0.0


def condition(state: SupervisorStatus) -> Condition:
    """Return what systemd wants to know of it."""
    waiting = len(waiting_in(state))
    return Condition(
        wanted=state.wanted,
        alive=len(state.processes),
        sound=sum(not one.stalled for one in state.processes),
        waiting=waiting,
        consuming=state.consuming,
        reloading=state.reloading,
        stopping=state.stopping,
        status=status_line(state),
    )


def status_line(state: SupervisorStatus) -> str:
    """Return how it stands in a few words."""
    parts = [
        f"{state.consuming}/{state.wanted} consuming",
        f"{state.running} running",
        f"{short(state.counts.done)} done",
    ]
    if state.counts.dead:
        parts.append(f"{short(state.counts.dead)} dead")
    if state.stopping:
        parts.insert(0, "stopping")
    elif state.reloading:
        parts.insert(0, "reloading")
    elif waiting := waiting_in(state):
        ready = all(one.stage == Stage.READY.value for one in waiting)
        unknown = "the broker" if ready else "the broker or its queues"
        waits = next((one.waits for one in waiting if one.waits), unknown)
        if len(waiting) == len(state.processes):
            parts.insert(0, f"waiting for {in_short(waits)}")
        elif any(one.waits for one in waiting):
            parts.append(f"{len(waiting)} waiting for {in_short(waits)}")
    return ", ".join(parts)


def waiting_in(state: SupervisorStatus) -> list[ProcessView]:
    """Return the processes that have started and do not consume."""
    return [one for one in state.processes if one.stage in WAITING and not one.consuming]


def in_short(waits: str) -> str:
    """Return what is waited for as part of a line."""
    text = printable(" ".join(waits.split())).rstrip(".")
    return text if len(text) <= MOST_WAITS else f"{text[:MOST_WAITS]}…"


def short(count: int) -> str:
    """Return a count as people say it: 999, 12 k, 3.4 M."""
    if count < 10_000:
        return str(count)
    if count < 1_000_000:
        return f"{count // 1000} k"
    return f"{count / 1_000_000:.1f} M"
