"""
What a supervisor does when something happens, as a reducer without I/O: it touches no process, clock, pipe or signal.

Decides when a worker process is started, drained or killed, and when the supervisor ends. A pool never has more than one
process beyond its size, and a process that consumes is not drained before its replacement consumes. Pools take turns to start.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

from amqpworker.ipc.exit_status import FAILED, MISCONFIGURED, STOPPED, describe_exit
from amqpworker.ipc.stray_signals import DUMP_GRACE
from amqpworker.supervisor import actions
from amqpworker.supervisor.actions import Action, Level
from amqpworker.supervisor.rollout import Rollout, RolloutStep
from amqpworker.supervisor.slots import FleetProcess, Oversize, Pool, Slot, Stage

DRAIN_TIMEOUT = 30.0
KILL_GRACE = 10.0
IMPATIENT_GRACE = 2.0
# Before the supervisor gives up if no process has ever consumed: about three minutes.
MAX_DEATHS = 8
END_OVERDUE_PAUSE = 60.0


class Fleet:
    """
    All worker processes of a supervisor.

    `sizes` is how many processes each pool has, `jitter` returns a factor about 1, `start_timeouts` is how many seconds the
    processes of a pool have to become ready, `max_starts` how many of all processes may start at once. The size of the pools
    `fixed` never changes.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        jitter: Callable[[], float],
        start_timeouts: Mapping[str, float],
        max_starts: int | None = None,
        fixed: Collection[str] = (),
    ) -> None:
        self.pools = {name: Pool(name, [Slot(name, n) for n in range(1, size + 1)]) for name, size in sizes.items()}
        self._start_timeouts, self._fixed = start_timeouts, fixed
        self.processes: dict[int, FleetProcess] = {}
        self._max_starts = math.inf if max_starts is None else max_starts
        self.generation = 1
        self.stopping: float | None = None
        self._finished = False
        self.rollouts = {name: Rollout(pool) for name, pool in self.pools.items()}
        self._jitter = jitter
        self._serial = 0
        self._deaths = 0
        self._impatient = False
        self._end_overdue_at = -math.inf
        self._stop_reason = ""
        self._exit_code = STOPPED
        self._actions: list[Action] = []

    # ---- queries ----------------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """How many processes the pools should have."""
        return sum(len(pool.slots) for pool in self.pools.values())

    @property
    def up(self) -> bool:
        """Whether any process has ever consumed."""
        return any(pool.up for pool in self.pools.values())

    @property
    def reloading(self) -> bool:
        """Whether a reload is in progress."""
        return any(rollout.reloading for rollout in self.rollouts.values())

    def next_due(self, now: float) -> float | None:
        """Return when something is due without an event, None if nothing is."""
        alive = [process for process in self.processes.values() if process.stage is not Stage.KILLED]
        due = [process.kill_at for process in alive if process.kill_at is not None]
        if self.stopping is not None:
            return min([*due, self.stopping]) if alive else None
        due += [process.ready_by for process in alive if process.is_starting]
        due += [slot.start_at for slot in self._slots_to_fill() if self._may_start or slot.start_at > now]
        due_times = [rollout.next_due(now) for rollout in self.rollouts.values() if self._has_room(rollout.pool)]
        return min([*due, *(when for when in due_times if when is not None)], default=None)

    # ---- what happens to processes ----------------------------------------------------------------------------------
    # Each method returns the actions that follow, at `now` (monotonic). A report may be read after the end of its process.

    def tick(self, now: float) -> list[Action]:
        """Do what is due because time has passed."""
        self._time_out_starts(now)
        self._kill_late(now)
        if self.stopping is None:
            self._fill_slots(now)
            self._advance_rollouts(now)
            self._fill_slots(now)  # a starting process that was drained has freed its turn
        elif not self.processes and not self._finished:
            self._finished = True
            self._actions.append(actions.Finish(self._exit_code, self._stop_reason))
        made, self._actions = self._actions, []
        return made

    def on_clock_gap(self, seconds: float, now: float) -> list[Action]:
        """The supervisor itself did not run for this long, and perhaps its processes did not either."""
        for process in self.processes.values():
            process.ready_by += seconds
        return self.tick(now)

    def on_not_started(self, serial: int, reason: str, now: float) -> list[Action]:
        """The system could not start a process."""
        process = self.processes[serial]
        if process.slot.replacement is process:
            self._rollout_of(process).retry_later()
        self._remove(process)
        retry_in = process.slot.back_off(process, now, self._jitter)
        self._log_process("error", "process_not_started", process, reason=reason, retry_in=round(retry_in, 1))
        return self.tick(now)

    def on_ready(self, serial: int, drain_timeout: float, now: float) -> list[Action]:
        """A process handles signals from now on, and needs up to `drain_timeout` seconds to drain."""
        if (process := self.processes.get(serial)) is not None:
            process.drain_timeout = drain_timeout
            if process.stage is Stage.STARTING:
                process.stage = Stage.READY
        return self.tick(now)

    def on_consuming(self, serial: int, now: float) -> list[Action]:
        """The broker has confirmed a consumer of a process."""
        if (process := self.processes.get(serial)) is not None:
            self._on_consuming(process, now)
        return self.tick(now)

    def on_misconfigured(self, serial: int, reason: str, now: float) -> list[Action]:
        """A process has reported why it can never run, and ends."""
        if (process := self.processes.get(serial)) is not None:
            process.reason, process.misconfigured = reason, True
        return self.tick(now)

    def on_exiting(self, serial: int, reason: str, now: float) -> list[Action]:
        """A process has stopped consuming by itself and ends soon: a task is overdue, or its lifespan was lost."""
        if (process := self.processes.get(serial)) is not None:
            self._drain(process, now, ask=False)
            self._rollout_of(process).add(RolloutStep(process.slot, process, "recycle", reason), urgent=True)
        return self.tick(now)

    def on_stalled(self, serial: int, reason: str, now: float) -> list[Action]:
        """A process is alive and makes no progress any more."""
        if (process := self.processes.get(serial)) is not None:
            self._on_stalled(process, reason, now)
        return self.tick(now)

    def on_overdue(self, serial: int, now: float) -> list[Action]:
        """A task of a process is overdue. One process per minute ends for that: a task may hang in all of them at once."""
        process = self.processes.get(serial)
        if process is not None and process.stage is Stage.CONSUMING and now >= self._end_overdue_at:
            self._end_overdue_at = now + END_OVERDUE_PAUSE
            self._actions.append(actions.EndOverdue(serial))
        return self.tick(now)

    def on_recycling_due(self, serial: int, reason: str, now: float, oversize: Oversize | None = None) -> list[Action]:
        """A process is to be replaced for its age or its tasks, or because it is too large (`oversize`)."""
        process = self.processes.get(serial)
        if process is not None and process.stage is Stage.CONSUMING:
            first = process.recycle_at is None
            due = self.pools[process.slot.pool].recycle_at(process, oversize, now, self._jitter)
            if first and oversize is not None and oversize.at_start:
                sizes = {"limit": f"{oversize.limit} MiB", "needed": f"{oversize.memory} MiB"}
                self._log_process("error", "max_memory_too_low", process, **sizes, retry_in=round(due - now, 1))
            self._rollout_of(process).add(RolloutStep(process.slot, process, "recycle", reason, start_at=due))
        return self.tick(now)

    def on_ended(self, serial: int, code: int, now: float, ran: bool = False) -> list[Action]:
        """A process has ended, with an exit code or (negative) by a signal; `ran` if a task was running in it."""
        process = self.processes[serial]
        if ran and process.slot.replacement is not process:
            self._on_consuming(process, now)  # a task ended it before it could report that
        self._on_ended(process, code, now)
        return self.tick(now)

    def _log_process(self, level: Level, event: str, process: FleetProcess, **fields: Any) -> None:
        slot = process.slot
        pool = {} if len(self.pools) == 1 else {"pool": slot.pool}
        self._actions.append(actions.Log(level, event, process.serial, {**pool, "number": slot.number, **fields}))

    def _log(self, level: Level, event: str, **fields: Any) -> None:
        self._actions.append(actions.Log(level, event, None, fields))

    # ---- starting ---------------------------------------------------------------------------------------------------

    def _slots_to_fill(self) -> list[Slot]:
        """Return the slots that need a process; a slot that is about to be removed does not."""
        empty = [slot for pool in self.pools.values() for slot in pool.slots_to_start() if slot.process is None]
        return [slot for slot in empty if not self.rollouts[slot.pool].retires(slot)]

    @property
    def _may_start(self) -> bool:
        """Whether another process may start: with more imports than cores at once each takes longer."""
        return sum(process.is_starting for process in self.processes.values()) < self._max_starts

    def _fill_slots(self, now: float) -> None:
        waiting = [slot for slot in self._slots_to_fill() if slot.start_at <= now]
        while waiting and self._may_start:
            slot = min(waiting, key=lambda slot: (self.pools[slot.pool].last_start, slot.start_at))
            waiting.remove(slot)
            slot.process = self._start(slot, now)

    def _start(self, slot: Slot, now: float) -> FleetProcess:
        self._serial += 1
        self.pools[slot.pool].last_start = self._serial
        ready_by = now + self._start_timeouts[slot.pool]
        process = FleetProcess(self._serial, slot, self.generation, now, ready_by)
        self.processes[process.serial] = process
        self._actions.append(actions.Start(process.serial, slot.pool, slot.number))
        return process

    def _time_out_starts(self, now: float) -> None:
        for process in self.processes.values():
            if process.is_starting and process.ready_by <= now:
                self._on_stalled(process, f"it was not ready within {now - process.started:.0f} s", now)

    def _on_consuming(self, process: FleetProcess, now: float) -> None:
        if process.stage not in {Stage.STARTING, Stage.READY} or process.exit_expected:
            return
        process.stage = Stage.CONSUMING
        process.consumed = True
        pool, slot = self.pools[process.slot.pool], process.slot
        if not pool.up:
            pool.up = True
            self._log_process("info", "pool_started", process, processes=len(pool.slots))
        self._log_process("info", "process_started", process)
        if slot.replacement is process and slot.process is not None:
            self._drain(slot.process, now)

    # ---- ending -----------------------------------------------------------------------------------------------------

    def _drain(self, process: FleetProcess, now: float, ask: bool = True) -> None:
        """Have a process finish its running tasks and end, and kill it if it does not end in time."""
        if process.exit_expected:
            return
        process.exit_expected = True
        if process.stage is Stage.CONSUMING:
            process.stage = Stage.DRAINING
        timeout = DRAIN_TIMEOUT if process.drain_timeout is None else process.drain_timeout
        process.kill_by(now + timeout + KILL_GRACE)
        if ask:
            self._actions.append(actions.Drain(process.serial))

    def _on_stalled(self, process: FleetProcess, reason: str, now: float) -> None:
        kill_at = now + DUMP_GRACE
        if process.stage is Stage.KILLED or (process.kill_at is not None and process.kill_at <= kill_at):
            return
        effect = "its stacks follow, then it is killed"
        self._log_process("error", "process_stalled", process, reason=reason, effect=effect)
        process.reason = reason
        self._actions.append(actions.DumpStacks(process.serial))
        process.kill_by(kill_at)

    def _kill_late(self, now: float) -> None:
        late = self.stopping is not None and now >= self.stopping
        for process in self.processes.values():
            due = late or (process.kill_at is not None and process.kill_at <= now)
            if due and process.stage is not Stage.KILLED:
                reason = process.reason or "it did not stop in time"
                self._log_process("error", "process_killed", process, reason=reason)
                process.stage = Stage.KILLED
                self._actions.append(actions.Kill(process.serial))

    def _on_ended(self, process: FleetProcess, code: int, now: float) -> None:
        is_replacement = process.slot.replacement is process
        self._remove(process)
        if self.stopping is not None:
            if not self._stop_reason:
                self._exit_code = max(self._exit_code, process.pool_exit_code(code))
        elif process.exit_expected:
            process.slot.start_at = now
            if code == FAILED:
                process.slot.back_off(process, now, self._jitter)  # it ended by itself, and may do so again
            level: Level = "info" if code == STOPPED or not process.consumed else "warning"
            self._log_process(level, "process_ended", process, exit_status=describe_exit(code))
        elif is_replacement:
            self._on_death(process, code, now)
            if not process.consumed and self._rollout_of(process).on_replacement_lost(process.can_never_run(code)):
                reason, effect = process.reason or describe_exit(code), "the old processes keep running"
                self._log("error", "reload_failed", pool=process.slot.pool, reason=reason, effect=effect)
        elif not self.up and process.can_never_run(code):
            self._give_up(MISCONFIGURED, process.reason or "A process cannot run: see the log.", now)
        else:
            self._on_death(process, code, now)
            self._count_death(code, now)

    def _on_death(self, process: FleetProcess, code: int, now: float) -> None:
        retry_in = process.slot.back_off(process, now, self._jitter)
        fields = {"exit_status": describe_exit(code), "reason": process.reason or None, "retry_in": round(retry_in, 1)}
        self._log_process("error", "process_died", process, **fields)

    def _count_death(self, code: int, now: float) -> None:
        """Give up if no process has ever consumed; the replacement of a living process is not counted."""
        self._deaths += 1
        if not self.up and self._deaths >= MAX_DEATHS:
            deaths = f"{self._deaths} have ended, the last by {describe_exit(code)}"
            self._give_up(FAILED, f"No process has ever consumed, and {deaths}: see the log.", now)

    def _give_up(self, code: int, reason: str, now: float) -> None:
        self._exit_code, self._stop_reason = code, reason
        self._stop_all(now)

    def _remove(self, process: FleetProcess) -> None:
        del self.processes[process.serial]
        process.slot.remove(process)

    # ---- requests ---------------------------------------------------------------------------------------------------

    def stop(self, reason: str, now: float) -> list[Action]:
        """Stop all processes once their running tasks have ended."""
        if self.stopping is None:
            self._stop_all(now)
            assert self.stopping is not None
            self._log("info", "supervisor_stopping", reason=reason, timeout=round(self.stopping - now - KILL_GRACE, 3))
        return self.tick(now)

    def stop_now(self, now: float) -> list[Action]:
        """Do not wait for running tasks any more; called after `stop`."""
        assert self.stopping is not None
        if not self._impatient:
            self._impatient = True
            self._log("warning", "supervisor_ends_at_once")
            self.stopping = min(self.stopping, now + IMPATIENT_GRACE)
            # A second signal, at which the processes abandon their running tasks.
            self._actions += [actions.Interrupt(serial) for serial in self.processes]
        return self.tick(now)

    def reload(self, now: float) -> list[Action]:
        """Replace every process by one with the new code."""
        self.generation += 1
        self._log("info", "supervisor_reloading", generation=self.generation, processes=self.size)
        for rollout in self.rollouts.values():
            if (late := rollout.replacement) is not None and late.stage in {Stage.STARTING, Stage.READY}:
                self._drain(late, now)  # it may never consume, and has the old code
            for slot in rollout.pool.slots:
                rollout.add(RolloutStep(slot, slot.process, "reload", "reload"))
        return self.tick(now)

    def grow(self, now: float) -> list[Action]:
        """Add a process to each pool of variable size."""
        for pool in (pool for name, pool in self.pools.items() if name not in self._fixed):
            number = max(slot.number for slot in pool.slots) + 1
            pool.slots.append(Slot(pool.name, number))
            self._log("info", "pool_grown", pool=pool.name, processes=len(pool.slots))
        return self.tick(now)

    def shrink(self, now: float) -> list[Action]:
        """Remove a process from each pool that has more than one."""
        for rollout in self.rollouts.values():
            staying = [slot for slot in rollout.pool.slots if not rollout.retires(slot)]
            if len(staying) > 1:
                rollout.add(RolloutStep(staying[-1], None, "retire", "one process less"))
        return self.tick(now)

    def _stop_all(self, now: float) -> None:
        timeouts = [process.drain_timeout for process in self.processes.values() if process.drain_timeout is not None]
        self.stopping = now + max(timeouts, default=DRAIN_TIMEOUT) + KILL_GRACE
        for process in self.processes.values():
            self._drain(process, now)

    # ---- rollouts ---------------------------------------------------------------------------------------------------

    def _advance_rollouts(self, now: float) -> None:
        for rollout in sorted(self.rollouts.values(), key=lambda rollout: rollout.pool.last_start):
            rollout.clear_finished()
            while self._has_room(rollout.pool):
                if (step := rollout.start_next(now, self._may_start)) is None:
                    break
                self._perform(step, now)
                rollout.clear_finished()  # at once if there is nothing to wait for

    def _has_room(self, pool: Pool) -> bool:
        """Return whether a pool may have one more process: one that remains from the step before counts, too."""
        return sum(process.slot.pool == pool.name for process in self.processes.values()) <= len(pool.slots)

    def _rollout_of(self, process: FleetProcess) -> Rollout:
        return self.rollouts[process.slot.pool]

    def _perform(self, step: RolloutStep, now: float) -> None:
        slot = step.slot
        if step.kind == "retire":
            pool = self.pools[slot.pool]
            pool.slots.remove(slot)
            self._log("info", "pool_shrunk", pool=pool.name, processes=len(pool.slots))
            if slot.process is not None:
                self._drain(slot.process, now)
        elif slot.process is not None and step.replaces(slot.process, self.generation):
            slot.replacement = self._start(slot, now)
            self._log_process("info", "process_replaced", slot.process, reason=step.reason)
