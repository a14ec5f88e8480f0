"""At most as many processes start at once as there are cores, and pools take turns."""

from __future__ import annotations

import pytest

from amqpworker.supervisor.actions import Drain, DumpStacks, Kill, Start
from amqpworker.supervisor.fleet import Fleet
from tests.unit.supervisor.fleet_scene import FleetScene


def scene(max_starts: int, **sizes: int) -> FleetScene:
    """Return a scene whose processes take turns."""
    made = FleetScene.__new__(FleetScene)
    start_timeouts = {**dict.fromkeys(sizes, 60.0), "patient": 600.0}
    made.fleet, made.now, made.said = Fleet(sizes, lambda: 1.0, start_timeouts, max_starts), 100.0, []
    made.first = made.on(Fleet.tick)
    return made


def test_the_next_process_starts_when_one_is_ready_and_not_before() -> None:
    pool = scene(2, main=5)
    assert pool.consumes(1) == [Start(2, "main", 2), Start(3, "main", 3)]
    assert pool.on(Fleet.tick, after=5.0) == []
    assert pool.on(Fleet.on_ready, 3, 30.0) == [Start(4, "main", 4)]
    assert pool.on(Fleet.on_consuming, 3) == [], "it has left its turn by then"
    assert pool.on(Fleet.on_ended, 2, 1) == [Start(5, "main", 5)], "the one that died waits for a while"


def test_the_start_timeout_counts_from_the_turn() -> None:
    pool = scene(1, main=3)
    assert pool.consumes(1) == [Start(2, "main", 2)]
    assert pool.on(Fleet.on_ready, 2, 30.0, after=59.0) == [Start(3, "main", 3)]
    assert pool.on(Fleet.tick, after=59.9) == []
    assert pool.on(Fleet.tick, after=0.1) == [DumpStacks(3)]


def test_a_start_that_is_given_up_leaves_its_turn() -> None:
    pool = scene(1, main=3)
    pool.consumes(1)
    assert pool.on(Fleet.tick, after=60.0) == [DumpStacks(2), Start(3, "main", 3)]
    assert pool.on(Fleet.tick, after=1.0) == [Kill(2)]


def test_nothing_is_due_for_what_waits_for_its_turn() -> None:
    pool = scene(1, main=3)
    pool.consumes(1)
    assert pool.fleet.next_due(pool.now) == pytest.approx(pool.now + 60.0), "when the one that starts is late"


def test_pools_take_turns() -> None:
    pools = scene(1, mails=3, reports=3)
    assert pools.first == [Start(1, "mails", 1)]
    assert pools.consumes(1) == [Start(2, "reports", 1)]
    assert pools.consumes(2) == [Start(3, "mails", 2)]
    assert pools.on(Fleet.on_ended, 3, 1) == [Start(4, "reports", 2)]
    assert pools.consumes(4) == [Start(5, "mails", 3)]
    assert pools.consumes(5) == [Start(6, "reports", 3)]


def test_reloads_of_many_pools_and_what_they_are_to_grow_by_take_turns_too() -> None:
    pools = scene(1, mails=1, reports=1, patient=1)
    for serial in (1, 2, 3):
        pools.consumes(serial)
    assert pools.on(Fleet.reload) == [Start(4, "mails", 1)]
    assert pools.on(Fleet.grow) == []
    started = [one for serial in range(4, 9) for one in pools.consumes(serial) if isinstance(one, Start)]
    assert sorted(one.pool for one in started) == ["mails", "patient", "patient", "reports", "reports"]
    assert len(pools.fleet.processes) == 9


def test_a_starting_process_that_is_to_go_leaves_its_turn_at_once() -> None:
    pools = scene(1, mails=2, reports=1)
    pools.consumes(1)
    pools.consumes(2)
    assert pools.on(Fleet.on_ended, 2, -9) == []
    assert pools.on(Fleet.shrink) == [Drain(3), Start(4, "reports", 1)], "the second of the mails was starting"
    assert pools.fleet.next_due(pools.now) == pytest.approx(pools.now + 40.0)


def test_a_process_less_waits_for_no_turn() -> None:
    pools = scene(1, mails=3, reports=2)
    for serial in range(1, 6):
        pools.consumes(serial)
    (started,) = pools.on(Fleet.on_ended, 1, -9)
    assert isinstance(started, Start)
    assert [type(one) for one in pools.on(Fleet.shrink)] == [Drain, Drain]
