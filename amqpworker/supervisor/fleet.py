"""
What a supervisor does about what happens: no process, clock, pipe or signal is touched here.

Decides when a worker process is started, drained or killed, and when all of it ends. A pool never has more than one process
beyond those that were asked for, and none that consumes is drained before its successor consumes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, assert_never

from amqpworker.ipc.exit_status import how_it_ended
from amqpworker.ipc.report import FAILED, MISCONFIGURED, STOPPED
from amqpworker.supervisor import fleet_events as events
from amqpworker.supervisor.exit_codes import never_runs, pool_code
from amqpworker.supervisor.pools import START_TIMEOUT
from amqpworker.supervisor.rollout import Replacement, Rollout
from amqpworker.supervisor.slots import Pool, Process, Slot, Stage
from amqpworker.supervisor.turns import Turns

__all__ = ["KILL_GRACE", "Fleet"]

DRAIN_TIMEOUT = 30.0
KILL_GRACE = 10.0
IMPATIENT_GRACE = 2.0
# Writing the stacks of many threads takes a moment.
DUMP_GRACE = 1.0
# Of a program that has never consumed: it takes about three minutes.
MOST_DEATHS = 8
OVER_LIMIT_PAUSE = 60.0


class Fleet:
    """
    All worker processes of a supervisor.

    `sizes` gives how many each pool has, `jitter` a factor about 1, `start_timeouts` the seconds that its processes have
    to become ready, `most_starts` how many of all processes may start at once.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        jitter: Callable[[], float],
        start_timeouts: Mapping[str, float] | None = None,
        most_starts: int | None = None,
    ) -> None:
        self.pools = {name: Pool(name, [Slot(name, n) for n in range(1, size + 1)]) for name, size in sizes.items()}
        self._start_timeouts = start_timeouts or {}
        self._turns = Turns(most_starts)
        self.processes: dict[int, Process] = {}
        self.generation = 1
        self.stopping: float | None = None
        self.finished = False
        self.changes = {name: Rollout(pool) for name, pool in self.pools.items()}
        self._jitter = jitter
        self._serial = 0
        self._deaths = 0
        self._impatient = False
        self._over_limit_at = -math.inf
        self._problem = ""
        self._worst = STOPPED
        self._actions: list[events.Action] = []

    # ---- what others ask --------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """How many processes there are to be."""
        return sum(len(pool.places) for pool in self.pools.values())

    @property
    def up(self) -> bool:
        """Whether any process has ever consumed."""
        return any(pool.up for pool in self.pools.values())

    @property
    def reloading(self) -> bool:
        """Whether processes are still to be replaced because of a reload."""
        return any(changes.reloading for changes in self.changes.values())

    def next_due(self, now: float) -> float | None:
        """Return when something is due without an event, None where nothing is."""
        alive = [one for one in self.processes.values() if one.stage is not Stage.KILLED]
        due = [one.kill_at for one in alive if one.kill_at is not None]
        if self.stopping is not None:
            return min([*due, self.stopping]) if alive else None
        due += [one.ready_by for one in alive if one.starts]
        may_start = self._turns.free(self.processes.values())
        due += [place.start_at for place in self._to_fill() if may_start or place.start_at > now]
        changing = [changes.next_due(now) for changes in self.changes.values() if self._may_change(changes.pool)]
        return min([*due, *(when for when in changing if when is not None)], default=None)

    # ---- what happens -----------------------------------------------------------------------------------------------

    def on(self, event: events.Event, now: float) -> list[events.Action]:
        """Take an event, and return what to do; `now` is monotonic."""
        self._actions = []
        self._take(event, now)
        self._give_up_starting(now)
        self._kill_due(now)
        if self.stopping is None:
            self._fill_places(now)
            self._go_on_changing(now)
            self._fill_places(now)  # a process that started and is to go has left its turn
        elif not self.processes and not self.finished:
            self.finished = True
            self._actions.append(events.Finish(self._worst, self._problem))
        return self._actions

    def _take(self, event: events.Event, now: float) -> None:
        match event:
            case events.Stop(why):
                self._stop(why, now)
            case events.StopNow():
                self._stop_now(now)
            case events.Reload():
                self._reload(now)
            case events.Grow():
                self._grow()
            case events.Shrink():
                self._shrink()
            case events.ClockGap(seconds):
                for process in self.processes.values():
                    process.ready_by += seconds
            case events.Tick():
                pass
            case _:
                # What a process said may be heard after its end.
                if (about := self.processes.get(event.serial)) is not None:
                    self._on_process(about, event, now)

    def _on_process(self, process: Process, event: events.ProcessEvent, now: float) -> None:
        """Take what happened to one process."""
        match event:
            case events.Ready(_, drain_timeout):
                process.drain_timeout = drain_timeout
                if process.stage is Stage.STARTING:
                    process.stage = Stage.READY
            case events.Consuming():
                self._on_consuming(process, now)
            case events.Misconfigured(_, reason):
                process.problem, process.misconfigured = reason, True
            case events.Leaving(_, reason):
                self._drain(process, now, ask=False)
                self._changes_of(process).add(Replacement(process.place, process, "recycle", reason), urgent=True)
            case events.Stalled(_, what):
                self._on_stalled(process, what, now)
            case events.RecyclingDue():
                self._on_recycling_due(process, event, now)
            case events.OverLimit():
                self._on_over_limit(process, now)
            case events.NotStarted(_, reason):
                self._on_not_started(process, reason, now)
            case events.Ended(_, code, ran):
                if ran and process.place.successor is not process:
                    self._on_consuming(process, now)  # it died of a task before it could report that
                self._on_ended(process, code, now)
            case _:
                assert_never(event)

    def _tell(self, level: Literal["info", "warning", "error"], event: str, process: Process, **fields: Any) -> None:
        place = process.place
        where = {"number": place.number} if len(self.pools) == 1 else {"pool": place.pool, "number": place.number}
        self._actions.append(events.Tell(level, event, process.serial, {**where, **fields}))

    def _say(self, level: Literal["info", "warning", "error"], event: str, **fields: Any) -> None:
        self._actions.append(events.Tell(level, event, None, fields))

    # ---- starting ---------------------------------------------------------------------------------------------------

    def _to_fill(self) -> list[Slot]:
        """Return the places that are to get a process; one that is to go gets none any more."""
        empty = [place for pool in self.pools.values() for place in pool.startable() if place.process is None]
        return [place for place in empty if not self.changes[place.pool].retires(place)]

    def _fill_places(self, now: float) -> None:
        waiting = [place for place in self._to_fill() if place.start_at <= now]
        while (place := self._turns.next(waiting, self.processes.values())) is not None:
            waiting.remove(place)
            place.process = self._start(place, now)

    def _start(self, place: Slot, now: float) -> Process:
        self._serial += 1
        self._turns.take(place.pool)
        ready_by = now + self._start_timeouts.get(place.pool, START_TIMEOUT)
        process = Process(self._serial, place, self.generation, now, ready_by)
        self.processes[process.serial] = process
        self._actions.append(events.Start(process.serial, place.pool, place.number))
        return process

    def _give_up_starting(self, now: float) -> None:
        for process in self.processes.values():
            if process.starts and process.ready_by <= now:
                self._on_stalled(process, f"it was not ready within {now - process.started:.0f} s", now)

    def _on_not_started(self, process: Process, reason: str, now: float) -> None:
        if process.place.successor is process:
            self._changes_of(process).put_back()
        self._forget(process)
        again_in = process.place.put_off(process, now, self._jitter)
        self._tell("error", "process_not_started", process, reason=reason, again_in=round(again_in, 1))

    def _on_consuming(self, process: Process, now: float) -> None:
        if process.stage not in {Stage.STARTING, Stage.READY} or process.wanted:
            return
        process.stage = Stage.CONSUMING
        process.consumed = True
        pool, place = self.pools[process.place.pool], process.place
        if not pool.up:
            pool.up = True
            self._tell("info", "pool_started", process, processes=len(pool.places))
        self._tell("info", "process_started", process)
        if place.successor is process and place.process is not None:
            self._drain(place.process, now)

    # ---- ending -----------------------------------------------------------------------------------------------------

    def _drain(self, process: Process, now: float, ask: bool = True) -> None:
        """Have a process finish what runs and end, and be killed where it does not in time."""
        if process.wanted:
            return
        process.wanted = True
        if process.stage is Stage.CONSUMING:
            process.stage = Stage.DRAINING
        timeout = DRAIN_TIMEOUT if process.drain_timeout is None else process.drain_timeout
        self._kill_by(process, now + timeout + KILL_GRACE)
        if ask:
            self._actions.append(events.Drain(process.serial))

    def _on_over_limit(self, process: Process, now: float) -> None:
        """Have a process replaced, one a minute: a task that hangs everywhere must not take all processes at once."""
        if process.stage is Stage.CONSUMING and not process.wanted and now >= self._over_limit_at:
            self._over_limit_at = now + OVER_LIMIT_PAUSE
            self._actions.append(events.Replace(process.serial))

    def _kill_by(self, process: Process, when: float) -> None:
        process.kill_at = when if process.kill_at is None else min(process.kill_at, when)

    def _on_stalled(self, process: Process, what: str, now: float) -> None:
        soon = now + DUMP_GRACE
        if process.stage is Stage.KILLED or (process.kill_at is not None and process.kill_at <= soon):
            return
        self._tell("error", "process_stalled", process, what=what, effect="its stacks follow, then it is killed")
        process.problem = what
        self._actions.append(events.DumpStacks(process.serial))
        self._kill_by(process, soon)

    def _on_recycling_due(self, process: Process, event: events.RecyclingDue, now: float) -> None:
        if process.stage is not Stage.CONSUMING:
            return
        pool, first = self.pools[process.place.pool], process.recycle_at is None
        due = pool.recycle_at(process, event.oversize, now, self._jitter)
        if first and (large := event.oversize) is not None and large.at_start:
            sizes = {"limit": f"{large.limit} MiB", "needed": f"{large.memory} MiB"}
            self._tell("error", "max_memory_too_low", process, **sizes, retry_in=round(due - now, 1))
        self._changes_of(process).add(Replacement(process.place, process, "recycle", event.reason, start_at=due))

    def _kill_due(self, now: float) -> None:
        late = self.stopping is not None and now >= self.stopping
        for process in self.processes.values():
            due = late or (process.kill_at is not None and process.kill_at <= now)
            if due and process.stage is not Stage.KILLED:
                self._tell("error", "process_killed", process, why=process.problem or "it did not stop in time")
                process.stage = Stage.KILLED
                self._actions.append(events.Kill(process.serial))

    def _on_ended(self, process: Process, code: int, now: float) -> None:
        follows = process.place.successor is process
        self._forget(process)
        if self.stopping is not None:
            self._worst = self._worst if self._problem else max(self._worst, pool_code(process, code))
        elif process.wanted:
            if code == FAILED:
                process.place.put_off(process, now, self._jitter)  # it left by itself, and may do so again
            else:
                process.place.start_at = now
            expected = code == STOPPED or not process.consumed
            self._tell("info" if expected else "warning", "process_ended", process, how=how_it_ended(code))
        elif follows:
            self._on_death(process, code, now)
            if not process.consumed and self._changes_of(process).fail_current(never_runs(process, code)):
                reason, effect = process.problem or how_it_ended(code), "the processes that run go on"
                self._say("error", "reload_failed", pool=process.place.pool, reason=reason, effect=effect)
        elif not self.up and never_runs(process, code):
            self._give_up(MISCONFIGURED, process.problem or "A worker process cannot run: see the log.", now)
        else:
            self._on_death(process, code, now)
            self._count_death(code, now)

    def _on_death(self, process: Process, code: int, now: float) -> None:
        again_in = process.place.put_off(process, now, self._jitter)
        how = how_it_ended(code)
        self._tell(
            "error", "process_died", process, how=how, reason=process.problem or None, again_in=round(again_in, 1)
        )

    def _count_death(self, code: int, now: float) -> None:
        """Give up where nothing has ever consumed; what was to follow a process that lives is not counted."""
        self._deaths += 1
        if not self.up and self._deaths >= MOST_DEATHS:
            last = how_it_ended(code)
            problem = f"No worker process has ever consumed, and {self._deaths} have ended, the last by {last}"
            self._give_up(FAILED, f"{problem}: see the log.", now)

    def _give_up(self, code: int, problem: str, now: float) -> None:
        self._worst, self._problem = code, problem
        self._stop_all(now)

    def _forget(self, process: Process) -> None:
        self.processes.pop(process.serial, None)
        process.place.vacate(process)

    # ---- what people ask for ----------------------------------------------------------------------------------------

    def _stop(self, why: str, now: float) -> None:
        if self.stopping is None:
            self._stop_all(now)
            assert self.stopping is not None
            self._say("info", "supervisor_stopping", why=why, timeout=round(self.stopping - now - KILL_GRACE, 3))

    def _stop_all(self, now: float) -> None:
        timeouts = [one.drain_timeout for one in self.processes.values() if one.drain_timeout is not None]
        self.stopping = now + max(timeouts, default=DRAIN_TIMEOUT) + KILL_GRACE
        for process in self.processes.values():
            self._drain(process, now)

    def _stop_now(self, now: float) -> None:
        self._stop("interrupted", now)
        assert self.stopping is not None
        if self._impatient:
            return
        self._impatient = True
        self._say("warning", "supervisor_ends_at_once")
        self.stopping = min(self.stopping, now + IMPATIENT_GRACE)
        # The processes see a second signal, and abandon what runs.
        self._actions += [events.Interrupt(serial) for serial in self.processes]

    def _reload(self, now: float) -> None:
        self.generation += 1
        self._say("info", "supervisor_reloading", generation=self.generation, processes=self.size)
        for changes in self.changes.values():
            if (late := changes.successor) is not None and late.stage in {Stage.STARTING, Stage.READY}:
                self._drain(late, now)  # it may wait for ever, and is of the code before
            for place in changes.pool.places:
                changes.add(Replacement(place, place.process, "reload", "reload"))

    def _grow(self) -> None:
        for pool in self.pools.values():
            number = max(place.number for place in pool.places) + 1
            pool.places.append(Slot(pool.name, number))
            self._say("info", "pool_grown", pool=pool.name, processes=len(pool.places))

    def _shrink(self) -> None:
        for changes in self.changes.values():
            staying = [place for place in changes.pool.places if not changes.retires(place)]
            if len(staying) > 1:
                changes.add(Replacement(staying[-1], None, "retire", "one process less"))

    # ---- one change after the other ---------------------------------------------------------------------------------

    def _go_on_changing(self, now: float) -> None:
        for changes in sorted(self.changes.values(), key=lambda one: self._turns.rank(one.pool.name)):
            changes.end_current()
            while self._may_change(changes.pool):
                if (change := changes.take(now, self._turns.free(self.processes.values()))) is None:
                    break
                self._begin(change, now)
                changes.end_current()  # at once where there is nothing to wait for

    def _may_change(self, pool: Pool) -> bool:
        """Tell whether there may be one more: a process that is left over from the change before is one already."""
        return sum(one.place.pool == pool.name for one in self.processes.values()) <= len(pool.places)

    def _changes_of(self, process: Process) -> Rollout:
        return self.changes[process.place.pool]

    def _begin(self, change: Replacement, now: float) -> None:
        place = change.place
        if change.kind == "retire":
            pool = self.pools[place.pool]
            pool.places.remove(place)
            self._say("info", "pool_shrunk", pool=pool.name, processes=len(pool.places))
            if place.process is not None:
                self._drain(place.process, now)
        elif place.process is not None and change.replaces(place.process, self.generation):
            place.successor = self._start(place, now)
            self._tell("info", "process_replaced", place.process, why=change.reason)
