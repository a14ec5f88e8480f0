"""A day of a supervisor on a virtual clock: deaths, stalls, reloads and impatient operators, and what must always hold."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import assert_never

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amqpworker.supervisor.events import (
    Action,
    Consuming,
    Drain,
    DumpStacks,
    Ended,
    Event,
    Finish,
    Gap,
    Grow,
    Interrupt,
    Kill,
    Leaving,
    Misconfigured,
    NotStarted,
    Ready,
    RecyclingDue,
    Reload,
    Shrink,
    Stalled,
    Start,
    Stop,
    StopNow,
    Tell,
    Tick,
)
from amqpworker.supervisor.fleet import Fleet
from amqpworker.supervisor.places import Stage
from amqpworker.supervisor.pools import START_TIMEOUT

DAY = 86_400.0
SIZES = {"fast": 3, "slow": 1}


@dataclass
class Body:
    """What the machine has of a process."""

    serial: int
    pool: str
    asked: bool = False
    hangs: bool = False


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
        self.fleet = Fleet(SIZES, lambda: 0.75 + chance.random() / 2)
        self.bodies: dict[int, Body] = {}
        self.due: list[Due] = []
        self.turn = 0
        self.broken_code = False
        self.finished: Finish | None = None
        self.stood_still = 0.0
        self.act(Tick())

    # ---- the machine ------------------------------------------------------------------------------------------------

    def later(self, delay: float, happens: Callable[[], None]) -> None:
        self.turn += 1
        self.due.append(Due(self.now + delay, self.turn, happens))

    def act(self, event: Event) -> None:
        consuming = self.consuming()
        for action in self.fleet.on(event, self.now):
            self.do(action)
        self.check(event, consuming)

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
            case Tell() | DumpStacks():
                pass
            case _:
                assert_never(action)

    def start(self, serial: int, pool: str) -> None:
        body = self.bodies[serial] = Body(serial, pool)
        luck = self.chance.random()
        if luck < 0.02:
            self.later(0.0, lambda: self.not_started(body))
        elif self.broken_code:
            self.later(0.4, lambda: self.refuse(body))
        elif luck < 0.1:
            self.later(0.3, lambda: self.end(body, 1))
        elif luck < 0.13:
            body.hangs = True
        else:
            self.later(0.3, lambda: self.tell(body, Ready(serial, 30.0)))
            self.later(0.5 + self.chance.random() * 5, lambda: self.tell(body, Consuming(serial)))

    def not_started(self, body: Body) -> None:
        if self.bodies.pop(body.serial, None):
            self.act(NotStarted(body.serial, "no room"))

    def refuse(self, body: Body) -> None:
        self.tell(body, Misconfigured(body.serial, "SyntaxError"))
        self.end(body, 2)

    def tell(self, body: Body, event: Event) -> None:
        if body.serial in self.bodies and not body.hangs:
            self.act(event)

    def drain(self, body: Body) -> None:
        assert not body.asked, "asked twice"
        body.asked = True
        if not body.hangs:
            self.later(self.chance.choice([0.1, 5.0, 30.0, 200.0]), lambda: self.end(body, 0))

    def end(self, body: Body, code: int) -> None:
        if self.bodies.pop(body.serial, None):
            self.act(Ended(body.serial, code))

    def consuming(self) -> set[int]:
        sound = {serial for serial, body in self.bodies.items() if not body.hangs}
        return {serial for serial, one in self.fleet.processes.items() if one.stage is Stage.CONSUMING} & sound

    # ---- what must always hold --------------------------------------------------------------------------------------

    def check(self, event: Event, consuming_before: set[int]) -> None:
        fleet = self.fleet
        for pool in fleet.pools.values():
            extra = sum(one.place.pool == pool.name for one in fleet.processes.values()) - len(pool.places)
            assert extra <= 1, (event, pool.name, extra)
        assert set(fleet.processes) == set(self.bodies), "an orphan, or a ghost"
        if fleet.stopping is None and consuming_before and not isinstance(event, Ended | Stalled | Leaving):
            assert self.consuming(), f"{event} left nobody who consumes"
        for pool in fleet.pools.values():
            assert pool.places
        for one in fleet.processes.values():
            patience = START_TIMEOUT + self.stood_still
            assert not one.starts or self.now - one.started <= patience, f"{one.serial} starts for ever"

    # ---- a day ------------------------------------------------------------------------------------------------------

    def fault(self) -> None:
        """Let something happen that nobody wished for, or that somebody asked for."""
        body = self.chance.choice(list(self.bodies.values())) if self.bodies else None
        match self.chance.randrange(10):
            case 0 if body:
                self.end(body, self.chance.choice([-9, -11, 1, 0, 3]))
            case 1 if body:
                body.hangs = True
                self.act(Stalled(body.serial, "main thread"))
            case 2 if body:
                self.tell(body, RecyclingDue(body.serial, "memory"))
            case 3 if body and not body.asked:
                self.tell(body, Leaving(body.serial, "hard limit"))
                self.later(2.0, lambda: self.end(body, 4))
            case 4:
                self.act(Reload())
            case 5 if self.fleet.size < 12:
                self.act(Grow())
            case 6:
                self.act(Shrink())
            case 7:
                self.broken_code = self.fleet.up and not self.broken_code
            case 8 if self.bodies:
                for one in list(self.bodies.values()):
                    self.end(one, -9)
            case 9:
                self.now += 30.0
                self.stood_still += 30.0
                self.act(Gap(30.0))
            case _:
                self.act(Tick())

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
                self.act(Tick())
        self.now = max(self.now, until) if self.finished is None else self.now


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.integers(0, 2**32).map(random.Random))
def test_a_day_of_deaths_stalls_and_reloads_leaves_no_orphan_and_never_one_process_too_many(
    chance: random.Random,
) -> None:
    world = World(chance)
    while world.now < DAY and world.finished is None:
        world.run_until(world.now + chance.choice([0.0, 0.2, 5.0, 120.0, 900.0]))
        if world.finished is None:
            world.fault()
    if world.finished is None:
        world.broken_code = False
        world.run_until(world.now + 1200)
        assert len(world.consuming()) == world.fleet.size, "all is well again in the end"
        world.act(Stop("the day is over"))
        world.run_until(world.now + 100)
    assert world.finished is not None
    assert not world.bodies


@pytest.mark.parametrize("hurry", [False, True])
def test_a_stop_ends_all_that_was_started(hurry: bool) -> None:
    world = World(random.Random(1))
    world.run_until(60.0)
    world.act(Stop("SIGTERM"))
    if hurry:
        world.act(StopNow())
    world.run_until(world.now + 100)
    assert world.finished is not None
    assert not world.bodies
