"""
A supervisor's check of its processes, once per second: what they record, and whether they are healthy.

Decides when a process is due for recycling, and that none has stalled if the supervisor itself did not run for a while.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from amqpworker.ipc.recorder import MAIN, Recording
from amqpworker.supervisor.actions import Action
from amqpworker.supervisor.fleet import Fleet
from amqpworker.supervisor.pools import MIB, PoolSpec, Recycling
from amqpworker.supervisor.slots import FleetProcess, Oversize, Stage
from amqpworker.supervisor.status import History, Observation, SchedulerView, SupervisorStatus, status_of
from amqpworker.supervisor.worker_handle import WorkerHandle

CHECK_INTERVAL = 1.0
# A supervisor that has not checked for this long was stopped itself, and perhaps its processes were, too.
CLOCK_GAP = 5.0
# What a process recorded longer ago may not be true any more.
STALE_AFTER = 3.0


class Monitor:
    """
    What was observed of the processes, and when they are checked next (`due`, monotonic).

    `latest` is the status at the last check, `history` what is remembered of processes that have ended.
    """

    def __init__(self, pools: Mapping[str, PoolSpec], now: float) -> None:
        self._pools = pools
        self.due = self._checked_at = now
        self._lenient_until = 0.0
        self._observations: dict[int, Observation] = {}
        # Processes that were below their memory limit while they consumed.
        self._fit: set[int] = set()
        self.history = History(apps={name: str(pool.options.get("app", "")) for name, pool in pools.items()})
        self.latest: SupervisorStatus | None = None

    def check_soon(self) -> None:
        """Make the next check due at once."""
        self.due = 0.0

    def check(self, fleet: Fleet, workers: Mapping[int, WorkerHandle], now: float) -> list[Action]:
        """Check every process, and return what `fleet` does about those that have a problem."""
        actions: list[Action] = []
        if now - self._checked_at > CLOCK_GAP:
            self._lenient_until = now + max(pool.stall_timeout for pool in self._pools.values())
            actions += fleet.on_clock_gap(now - self._checked_at, now)
        self._checked_at, self.due = now, now + CHECK_INTERVAL
        for serial, worker in workers.items():
            process = fleet.processes.get(serial)
            observation = self._observations[serial] = self._observe(process, worker, now)
            if process is not None:
                actions += self._check_process(fleet, process, observation, now)
        idle = {serial: self._idle_queues(fleet, serial, now) for serial in workers}
        for serial, bits in idle_elsewhere(idle).items():
            workers[serial].record_idle_elsewhere(bits)
        return actions

    def _idle_queues(self, fleet: Fleet, serial: int, now: float) -> int:
        """Return the bits of the queues for which a process is idle: none unless it consumes and has recorded that lately."""
        process, recording = fleet.processes.get(serial), self._observations[serial].recording
        if process is None or not process.is_consuming or recording is None:
            return 0
        return recording.idle if now - recording.heartbeats[MAIN] <= STALE_AFTER else 0

    def _observe(self, process: FleetProcess | None, worker: WorkerHandle, now: float) -> Observation:
        recording = worker.recording()
        stalled = ""
        if process is not None and process.drain_timeout is not None:  # else it does not record yet
            timeout = self._pools[process.slot.pool].stall_timeout
            stalled = "its recording cannot be read" if recording is None else recording.stalled_thread(now, timeout)
        scheduler = self._scheduler_of(process, worker)
        memory, unknown = worker.resident_bytes(), dict(worker.unknown)
        return Observation(worker.pid, memory, recording, stalled, worker.waits, scheduler, unknown, worker.paused)

    def _scheduler_of(self, process: FleetProcess | None, worker: WorkerHandle) -> SchedulerView | None:
        if process is None or (spec := self._pools[process.slot.pool]).kind != "scheduler":
            return None
        leading = worker.leading
        return SchedulerView(str(spec.options["name"]), leading.leads, leading.leader, leading.since)

    def _check_process(self, fleet: Fleet, process: FleetProcess, observation: Observation, now: float) -> list[Action]:
        recording, memory, actions = observation.recording, observation.memory, []
        if observation.stalled and now >= self._lenient_until:
            actions += fleet.on_stalled(process.serial, observation.stalled, now)
        if recording is not None and process.stage is Stage.CONSUMING:
            limits = self._pools[process.slot.pool].recycling
            oversize = self._oversize(process.serial, memory, limits.memory)
            if reason := recycling_reason(limits, now - process.started, recording.counts.settled, memory):
                actions += fleet.on_recycling_due(process.serial, reason, now, oversize)
            if recording.has_overdue_task(time.time()):
                actions += fleet.on_overdue(process.serial, now)
        return actions

    def _oversize(self, serial: int, memory: int, limit: int | None) -> Oversize | None:
        """Return by how much a process that consumes is too large, None if it is not."""
        if limit is None or memory < limit:
            self._fit.add(serial)
            return None
        return Oversize(memory // MIB, limit // MIB, serial not in self._fit)

    def update_status(self, fleet: Fleet, now: float) -> SupervisorStatus:
        """Return the status by what was observed last; `now` is monotonic."""
        self.latest = status_of(fleet, self._observations, self.history, time.time(), now)
        return self.latest

    def record_death(self, serial: int, recording: Recording | None) -> None:
        """Keep the counts of a process that has ended."""
        if recording is not None:
            self.history.counts = self.history.counts.plus(recording.counts)
        self._observations.pop(serial, None)
        self._fit.discard(serial)


def recycling_reason(limits: Recycling, age: float, tasks: int, memory: int) -> str:
    """Return why a process is due for recycling, by its age in seconds, settled tasks or bytes of memory; "" if it is not."""
    if limits.tasks is not None and tasks >= limits.tasks:
        return f"it has run {tasks} tasks"
    if limits.seconds is not None and age >= limits.seconds:
        return f"it has run for {age:.0f} s"
    if limits.memory is not None and memory >= limits.memory:
        return f"it holds {memory // MIB} MiB of memory"
    return ""


def idle_elsewhere(idle: Mapping[int, int]) -> dict[int, int]:
    """Return for each process, by its serial number, the bits that any other process has set."""
    once = twice = 0
    for bits in idle.values():
        twice |= once & bits
        once |= bits
    return {serial: (once & ~bits) | twice for serial, bits in idle.items()}
