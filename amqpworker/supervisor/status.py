"""
The status of a supervisor and its processes at one moment, for systemd, health checks and users.

Decides the numbers and the texts; nothing here queries the system.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from amqpworker.ipc.recorder import Counts, Recording, Running
from amqpworker.log.terminal import printable
from amqpworker.supervisor.fleet import Fleet
from amqpworker.supervisor.slots import FleetProcess, Stage

MAX_ERRORS = 10
MAX_REASON = 200
MAX_PAUSED = 3
# The stages in which a process that does not consume waits for the broker.
WAITING = frozenset({Stage.READY.value, Stage.CONSUMING.value})


@dataclass(frozen=True, slots=True)
class SchedulerView:
    """
    The scheduler that a process runs: its name, whether it leads all of that name, which one does (`leader`), and since when.

    `leader` is HOST:PID and `since` a time as messages have it; both are "" as long as the process does not know.
    """

    name: str
    leads: bool
    leader: str
    since: str


@dataclass(frozen=True, slots=True)
class Observation:
    """
    What the last check of a process has found.

    `stalled` is why it has stalled ("" if it has not), `waits` what it waits for until it consumes. `scheduler` is None if it
    runs tasks. `unknown` is how many messages wait of which tasks that it does not know, `paused` are its queues and tasks that
    are paused.
    """

    pid: int
    memory: int
    recording: Recording | None
    stalled: str = ""
    waits: str = ""
    scheduler: SchedulerView | None = None
    unknown: dict[str, int] = field(default_factory=dict)
    paused: tuple[str, ...] = ()


@dataclass(slots=True)
class History:
    """What a supervisor remembers: the counts of processes that have ended, the latest errors, and the app of each pool."""

    counts: Counts = field(default_factory=Counts)
    errors: deque[str] = field(default_factory=lambda: deque(maxlen=MAX_ERRORS))
    apps: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ProcessView:
    """
    One worker process; times are seconds, `started` counts from the epoch as those of `running` do.

    `isolated` is how many isolated processes it uses, `waiting_suspects` how many messages wait for one, `unconfirmed` how many
    retries and dead letters the broker has not confirmed in time. `waits` is what it waits for until it consumes from all
    its queues, and why. `scheduler` is None if it runs tasks. `unknown` is how many messages wait of which tasks that it does
    not know. `paused` are its queues and tasks that are paused, such as `queue emails`: it is ready all the same.
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
    running: tuple[Running, ...]
    isolated: int
    waiting_suspects: int
    unconfirmed: int
    waits: str = ""
    scheduler: SchedulerView | None = None
    unknown: dict[str, int] = field(default_factory=dict)
    paused: tuple[str, ...] = ()


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
        return sum(process.consuming for process in self.processes)

    @property
    def running(self) -> int:
        """How many tasks run."""
        return sum(len(process.running) for process in self.processes)

    @property
    def unknown(self) -> dict[str, int]:
        """How many messages wait of which tasks that these processes do not know."""
        found: Counter[str] = Counter()
        for process in self.processes:
            found.update(process.unknown)
        return dict(found.most_common())

    @property
    def paused(self) -> list[str]:
        """The queues and tasks that are paused in any process, such as `queue emails`."""
        return sorted({name for process in self.processes for name in process.paused})

    @property
    def waiting(self) -> list[ProcessView]:
        """The processes that have started and do not consume: they wait for the broker or their queues."""
        return [process for process in self.processes if process.stage in WAITING and not process.consuming]


def status_of(
    fleet: Fleet, observations: Mapping[int, Observation], history: History, now: float, monotonic: float
) -> SupervisorStatus:
    """Return the status; the current time is `now` since the epoch, and `monotonic` by that clock."""
    views = tuple(
        _view_of(process, observations[process.serial], now - (monotonic - process.started), now)
        for process in fleet.processes.values()
        if process.serial in observations
    )
    counts = history.counts
    for view in views:
        counts = counts.plus(view.counts)
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
                sum(view.consuming for view in views if view.pool == pool.name),
                history.apps.get(pool.name, ""),
            )
            for pool in fleet.pools.values()
        ),
    )


def _view_of(process: FleetProcess, observation: Observation, started: float, now: float) -> ProcessView:
    recording = Recording((), Counts(), ()) if observation.recording is None else observation.recording
    return ProcessView(
        pool=process.slot.pool,
        number=process.slot.number,
        pid=observation.pid,
        stage=process.stage.value,
        generation=process.generation,
        started=started,
        consuming=recording.consuming and process.stage is Stage.CONSUMING,
        stalled=observation.stalled,
        memory=observation.memory,
        counts=recording.counts,
        running=tuple(replace(run, over=run.seconds_over(now)) for run in recording.running),
        isolated=recording.gauges.isolated,
        waiting_suspects=recording.gauges.waiting_suspects,
        unconfirmed=recording.gauges.unconfirmed,
        waits=observation.waits,
        paused=observation.paused,
        scheduler=observation.scheduler,
        unknown=observation.unknown,
    )


def status_line(state: SupervisorStatus) -> str:
    """Return a status as a short line."""
    schedulers = [process for process in state.processes if process.scheduler is not None]
    parts = [f"{state.consuming}/{state.wanted} consuming"]
    if not schedulers or len(schedulers) < len(state.processes):
        parts += [f"{state.running} running", f"{_rounded(state.counts.done)} done"]
    if state.counts.dead:
        parts.append(f"{_rounded(state.counts.dead)} dead")
    if waiting_for_code := sum(state.unknown.values()):
        parts.append(f"{_rounded(waiting_for_code)} of unknown tasks waiting")
    parts += _scheduler_parts([process.scheduler for process in schedulers if process.consuming and process.scheduler])
    if paused := state.paused:
        parts.append(_paused_part(paused))
    if state.stopping:
        parts.insert(0, "stopping")
    elif state.reloading:
        parts.insert(0, "reloading")
    elif waiting := state.waiting:
        ready = all(process.stage == Stage.READY.value for process in waiting)
        unknown = "the broker" if ready else "the broker or its queues"
        reported = next((process.waits for process in waiting if process.waits), "")
        if len(waiting) == len(state.processes):
            parts.insert(0, f"waiting for {_shorten(reported or unknown)}")
        elif reported:
            parts.append(f"{len(waiting)} waiting for {_shorten(reported)}")
    return ", ".join(parts)


def _scheduler_parts(consuming: list[SchedulerView]) -> list[str]:
    """Return what consuming scheduler processes, of which there are two during a reload, are in the status line."""
    if not consuming:
        return []
    leads = any(scheduler.leads for scheduler in consuming)
    return [f"scheduler {printable(consuming[0].name)} {'leads' if leads else 'is a standby'}"]


def _paused_part(paused: list[str]) -> str:
    """Return what is paused as a part of the status line."""
    others = len(paused) - MAX_PAUSED
    return f"paused: {printable(' and '.join(paused[:MAX_PAUSED]))}" + (f" and {others} more" if others > 0 else "")


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
