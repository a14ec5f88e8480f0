"""
A day of a supervisor on a virtual clock, and what must always hold.

There are deaths, stalls, a machine without room, brokers that are away, code that cannot start, and impatient operators.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias, assert_never

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amqpworker.supervisor.actions import Action, Drain, DumpStacks, EndOverdue, Finish, Interrupt, Kill, Log, Start
from amqpworker.supervisor.fleet import Fleet
from amqpworker.supervisor.slots import Stage

Happens: TypeAlias = Callable[..., list[Action]]

DAY = 86_400.0
SIZES = {"fast": 3, "slow": 1}
START_TIMEOUT = 60.0


@dataclass
class Body:
    """What the machine has of a process."""

    serial: int
    pool: str
    asked: bool = False
    hangs: bool = False
    waits: bool = False


@dataclass(order=True)
class Due:
    """Something that happens later."""

    when: float
    turn: int
    happens: Callable[[], None] = field(compare=False)


class World:
    """A machine on which processes start, consume, die and hang, as `chance` has it."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.now = 0.0
        self.max_starts = chance.choice([1, 2, 100])
        self.fleet = Fleet(
            SIZES, lambda: 0.75 + chance.random() / 2, dict.fromkeys(SIZES, START_TIMEOUT), self.max_starts
        )
        self.bodies: dict[int, Body] = {}
        self.due: list[Due] = []
        self.turn = 0
        self.broken_code = False
        self.no_room = False
        self.away: set[str] = set()
        self.refused: list[int] = []
        self.wanted = dict(SIZES)
        self.given_up: set[str] = set()
        self.finished: Finish | None = None
        self.stood_still = 0.0
        self.act(Fleet.tick)

    # ---- the machine ------------------------------------------------------------------------------------------------

    def later(self, delay: float, happens: Callable[[], None]) -> None:
        self.turn += 1
        self.due.append(Due(self.now + delay, self.turn, happens))

    def act(self, happens: Happens, *given: Any) -> None:
        """Do what follows if that happens, and report what could not be started once all of it is done."""
        consuming = self.consuming()
        for action in happens(self.fleet, *given, self.now):
            self.do(action)
        self.check(happens, consuming)
        while self.refused:
            self.act(Fleet.on_not_started, self.refused.pop(0), "no room")

    def do(self, action: Action) -> None:
        match action:
            case Start(serial, pool):
                self.start(serial, pool)
            case Drain(serial):
                self.drain(self.bodies[serial])
            case Interrupt(serial) | Kill(serial):
                body = self.bodies[serial]
                self.later(0.01, lambda: self.end(body, -9))
            case Finish():
                self.finished = action
            case Log(event="reload_failed", fields=fields):
                self.given_up.add(fields["pool"])
            case Log() | DumpStacks() | EndOverdue():
                pass
            case _:
                assert_never(action)

    def start(self, serial: int, pool: str) -> None:
        luck = self.chance.random()
        if self.no_room or luck < 0.02:
            self.refused.append(serial)
            return
        body = self.bodies[serial] = Body(serial, pool)
        if self.broken_code:
            self.later(0.4, lambda: self.refuse(body))
        elif luck < 0.1:
            self.later(0.3, lambda: self.end(body, 1))
        elif luck < 0.13:
            body.hangs = True
        else:
            self.later(0.3, lambda: self.tell(body, Fleet.on_ready, serial, 30.0))
            self.later(0.5 + self.chance.random() * 5, lambda: self.consume(body))

    def consume(self, body: Body) -> None:
        body.waits = body.pool in self.away
        if not body.waits:
            self.tell(body, Fleet.on_consuming, body.serial)

    def come_back(self, pool: str) -> None:
        """Have the broker of a pool be there again."""
        self.away.discard(pool)
        for body in [one for one in self.bodies.values() if one.pool == pool and one.waits]:
            self.consume(body)

    def refuse(self, body: Body) -> None:
        self.tell(body, Fleet.on_misconfigured, body.serial, "SyntaxError")
        self.end(body, 2)

    def tell(self, body: Body, happens: Happens, *given: Any) -> None:
        if body.serial in self.bodies and not body.hangs:
            self.act(happens, *given)

    def drain(self, body: Body) -> None:
        assert not body.asked, "asked twice"
        body.asked = True
        if not body.hangs:
            self.later(self.chance.choice([0.1, 5.0, 30.0, 200.0]), lambda: self.end(body, 0))

    def end(self, body: Body, code: int) -> None:
        if self.bodies.pop(body.serial, None):
            self.act(Fleet.on_ended, body.serial, code)

    def consuming(self) -> dict[str, set[int]]:
        """Return which processes of each pool consume."""
        found: dict[str, set[int]] = {pool: set() for pool in SIZES}
        for body in self.bodies.values():
            process = self.fleet.processes.get(body.serial)
            if process is not None and process.stage is Stage.CONSUMING and not body.hangs:
                found[body.pool].add(body.serial)
        return found

    # ---- what must always hold --------------------------------------------------------------------------------------

    def check(self, event: Happens, before: dict[str, set[int]]) -> None:
        fleet = self.fleet
        for pool in fleet.pools.values():
            extra = sum(one.slot.pool == pool.name for one in fleet.processes.values()) - len(pool.slots)
            assert extra <= 1, (event, pool.name, extra)
            assert pool.slots
        assert set(fleet.processes) == {*self.bodies, *self.refused}, "an orphan, or a ghost"
        if fleet.stopping is None and event not in {Fleet.on_ended, Fleet.on_stalled, Fleet.on_exiting}:
            for name, consuming in self.consuming().items():
                assert consuming or not before[name], f"{event} left no process of {name} that consumes"
        assert sum(one.is_starting for one in fleet.processes.values()) <= self.max_starts
        due = fleet.next_due(self.now)
        assert due is None or due > self.now, f"something was left undone after {event}"
        for one in fleet.processes.values():
            patience = START_TIMEOUT + self.stood_still
            assert not one.is_starting or self.now - one.started <= patience, f"{one.serial} starts for ever"

    # ---- a day ------------------------------------------------------------------------------------------------------

    def happen(self) -> None:
        """Let something happen that was not intended, or that an operator asked for."""
        self.chance.choice([self.fault, self.outage, self.operate])()

    def fault(self) -> None:
        """Let something happen to a process, to all of them, or to the supervisor."""
        body = self.chance.choice(list(self.bodies.values())) if self.bodies else None
        match self.chance.randrange(6):
            case 0 if body:
                self.end(body, self.chance.choice([-9, -11, 1, 0, 3]))
            case 1 if body:
                body.hangs = True
                self.act(Fleet.on_stalled, body.serial, "main thread")
            case 2 if body:
                self.tell(body, Fleet.on_recycling_due, body.serial, "memory")
            case 3 if body and not body.asked and body.serial in self.consuming()[body.pool]:
                self.tell(body, Fleet.on_exiting, body.serial, "hard limit")
                self.later(2.0, lambda: self.end(body, 4))
            case 4:
                for one in list(self.bodies.values()):
                    self.end(one, -9)
            case _:
                self.now += 30.0
                self.stood_still += 30.0
                self.act(Fleet.on_clock_gap, 30.0)

    def outage(self) -> None:
        """Let what processes need be gone, or be there again."""
        pool = self.chance.choice(list(SIZES))
        match self.chance.randrange(3):
            case 0:
                self.broken_code = self.fleet.up and not self.broken_code
            case 1:
                self.no_room = not self.no_room
            case 2 if pool in self.away:
                self.come_back(pool)
            case _:
                self.away.add(pool)

    def operate(self) -> None:
        """Let an operator ask for something."""
        match self.chance.randrange(3):
            case 0:
                self.given_up.clear()
                self.act(Fleet.reload)
            case 1 if self.fleet.size < 12:
                self.wanted = {name: size + 1 for name, size in self.wanted.items()}
                self.act(Fleet.grow)
            case _:
                self.wanted = {name: max(1, size - 1) for name, size in self.wanted.items()}
                self.act(Fleet.shrink)

    def mend(self) -> None:
        """Let nothing be wrong any more, but for bad luck."""
        self.broken_code = self.no_room = False
        for pool in SIZES:
            self.come_back(pool)

    def run_until(self, until: float) -> None:
        """Let time pass, from one thing that is due to the next."""
        while self.finished is None:
            self.due.sort()
            ours = self.fleet.next_due(self.now)
            times = [one.when for one in self.due[:1]] + ([] if ours is None else [max(ours, self.now)])
            if not times or min(times) > until:
                break
            self.now = min(times)
            if self.due and self.due[0].when <= self.now:
                self.due.pop(0).happens()
            else:
                self.act(Fleet.tick)
        self.now = max(self.now, until) if self.finished is None else self.now


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.integers(0, 2**32).map(random.Random))
def test_a_day_of_deaths_stalls_and_reloads_leaves_no_orphan_and_never_one_process_too_many(
    chance: random.Random,
) -> None:
    world = World(chance)
    while world.now < DAY and world.finished is None:
        world.run_until(world.now + chance.choice([0.0, 0.2, 5.0, 120.0, 900.0]))
        if world.finished is None:
            world.happen()
    if world.finished is None:
        world.mend()
        world.run_until(world.now + 3600)
        assert {pool: len(found) for pool, found in world.consuming().items()} == world.wanted, "all is well in the end"
        assert not world.fleet.reloading
        old = [one for one in world.fleet.processes.values() if one.generation < world.fleet.generation]
        assert {one.slot.pool for one in old} <= world.given_up, "a reload was forgotten"
        world.act(Fleet.stop, "the day is over")
        world.run_until(world.now + 100)
    assert world.finished is not None
    assert not world.bodies


@pytest.mark.parametrize("hurry", [False, True])
def test_a_stop_ends_all_that_was_started(hurry: bool) -> None:
    world = World(random.Random(1))
    world.run_until(60.0)
    world.act(Fleet.stop, "SIGTERM")
    if hurry:
        world.act(Fleet.stop_now)
    world.run_until(world.now + 100)
    assert world.finished is not None
    assert not world.bodies
