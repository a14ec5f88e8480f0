"""What a supervisor makes of changes that come together: reloads, one process less, and a machine without room."""

from __future__ import annotations

import pytest

from amqpworker.ipc.exit_status import FAILED
from amqpworker.supervisor.actions import Drain, Kill, Start
from amqpworker.supervisor.fleet import Fleet
from tests.unit.supervisor.fleet_scene import FleetScene

# ---- reloads ----------------------------------------------------------------------------------------------------------


def test_a_reload_that_finds_no_room_for_a_process_continues_when_there_is(two: FleetScene) -> None:
    assert two.refused(Fleet.reload) == [Start(3, "main", 1)]
    assert two.fleet.reloading
    assert two.fleet.next_due(two.now) == two.now + 1.0
    assert two.refused(Fleet.tick, after=1.0) == [Start(4, "main", 1)]
    assert two.on(Fleet.tick, after=2.0) == [Start(5, "main", 1)]
    assert two.consumes(5) == [Drain(1)]
    assert two.on(Fleet.on_ended, 1, 0) == [Start(6, "main", 2)]


def test_a_reload_that_fails_before_the_broker_was_ever_reached_leaves_the_process_that_waits_for_it() -> None:
    scene = FleetScene(main=1)
    scene.on(Fleet.on_ready, 1, 30.0)
    assert scene.on(Fleet.reload) == [Start(2, "main", 1)]
    scene.on(Fleet.on_misconfigured, 2, "SyntaxError in shop.py")
    assert scene.on(Fleet.on_ended, 2, 2) == []
    assert scene.field("reload_failed", "reason") == "SyntaxError in shop.py"
    assert scene.on(Fleet.on_consuming, 1) == []
    assert sorted(scene.fleet.processes) == [1]


def test_what_a_reload_started_in_vain_does_not_end_what_waits_for_the_broker() -> None:
    scene = FleetScene(main=1)
    scene.on(Fleet.on_ready, 1, 30.0)
    serial = 1
    for _ in range(3):
        started = scene.on(Fleet.reload)
        for _ in range(3):
            serial += 1
            assert started == [Start(serial, "main", 1)]
            assert scene.on(Fleet.on_ended, serial, 1) == []
            started = scene.on(Fleet.tick, after=80.0)
    assert scene.words().count("reload_failed") == 3
    assert sorted(scene.fleet.processes) == [1]


def test_what_has_outgrown_its_limits_is_replaced_when_there_is_room(two: FleetScene) -> None:
    assert two.refused(Fleet.on_recycling_due, 2, "it has run 1000 tasks") == [Start(3, "main", 2)]
    assert two.on(Fleet.tick, after=1.0) == [Start(4, "main", 2)]
    assert two.consumes(4) == [Drain(2)]


@pytest.mark.parametrize("ready", [False, True])
def test_a_reload_takes_back_what_the_last_one_has_started_and_what_does_not_consume_yet(
    two: FleetScene, ready: bool
) -> None:
    two.on(Fleet.reload)
    if ready:
        two.on(Fleet.on_ready, 3, 30.0)
    assert two.on(Fleet.reload, after=600.0 if ready else 1.0) == [Drain(3)]
    assert two.on(Fleet.reload) == [], "asked once"
    assert two.on(Fleet.on_consuming, 3) == [], "too late"
    assert two.on(Fleet.on_ended, 3, 0) == [Start(4, "main", 2)]
    assert two.consumes(4) == [Drain(2)]
    assert two.on(Fleet.on_ended, 2, 0) == [Start(5, "main", 1)]
    assert two.consumes(5) == [Drain(1)]
    two.on(Fleet.on_ended, 1, 0)
    assert {one.generation for one in two.fleet.processes.values()} == {4}
    assert not two.fleet.reloading


def test_a_reload_takes_back_the_successor_of_what_has_outgrown_its_limits_too(two: FleetScene) -> None:
    assert two.on(Fleet.on_recycling_due, 1, "it has run 1000 tasks") == [Start(3, "main", 1)]
    two.on(Fleet.on_ready, 3, 30.0)
    assert two.on(Fleet.reload, after=600.0) == [Drain(3)]
    assert two.on(Fleet.on_ended, 3, 0) == [Start(4, "main", 1)]
    assert two.consumes(4) == [Drain(1)]


def test_a_reload_does_not_wait_for_a_new_process_that_does_not_even_end(two: FleetScene) -> None:
    two.on(Fleet.reload)
    two.on(Fleet.on_ready, 3, 5.0)
    assert two.on(Fleet.reload) == [Drain(3)]
    assert two.on(Fleet.tick, after=15.0) == [Kill(3)]
    assert two.on(Fleet.on_ended, 3, -9) == [Start(4, "main", 2)]
    assert "reload_failed" not in two.words()


def test_a_pool_whose_new_processes_wait_for_their_broker_holds_up_no_other_pool() -> None:
    scene = FleetScene(away=1, main=1)
    for serial in (1, 2):
        scene.consumes(serial)
    assert scene.on(Fleet.reload) == [Start(3, "away", 1), Start(4, "main", 1)], "one more in each pool"
    scene.on(Fleet.on_ready, 3, 30.0)
    assert scene.consumes(4) == [Drain(2)]
    scene.on(Fleet.on_ended, 2, 0)
    assert scene.on(Fleet.on_recycling_due, 4, "it holds 500 MiB of memory", after=3600.0) == [Start(5, "main", 1)]
    assert scene.consumes(5) == [Drain(4)]
    assert scene.fleet.reloading


def test_a_reload_that_fails_in_one_pool_continues_in_the_others() -> None:
    scene = FleetScene(broken=1, main=1)
    for serial in (1, 2):
        scene.consumes(serial)
    scene.on(Fleet.reload)
    scene.on(Fleet.on_misconfigured, 3, "SyntaxError")
    assert scene.on(Fleet.on_ended, 3, 2) == []
    assert scene.field("reload_failed", "pool") == "broken"
    assert scene.consumes(4) == [Drain(2)]
    scene.on(Fleet.on_ended, 2, 0)
    assert sorted(scene.fleet.processes) == [1, 4]
    assert not scene.fleet.reloading


# ---- one process less -------------------------------------------------------------------------------------------------


def test_a_place_that_could_not_be_filled_goes_without_another_start(two: FleetScene) -> None:
    assert two.refused(Fleet.grow) == [Start(3, "main", 3)]
    assert two.on(Fleet.shrink, after=0.5) == []
    assert two.said[-1].fields == {"pool": "main", "processes": 2}
    assert two.on(Fleet.tick, after=60.0) == []
    assert two.fleet.next_due(two.now) is None


def test_a_place_that_is_to_go_and_has_died_is_not_filled_again_while_another_change_is_under_way(
    two: FleetScene,
) -> None:
    assert two.on(Fleet.reload) == [Start(3, "main", 1)]
    two.on(Fleet.shrink)
    assert two.on(Fleet.on_ended, 2, -9) == []
    assert two.consumes(3) == [Drain(1)]
    assert two.on(Fleet.on_ended, 1, 0) == []
    assert sorted(two.fleet.processes) == [3]


def test_so_many_processes_go_as_were_asked_to_also_while_another_change_is_under_way_and_one_stays() -> None:
    scene = FleetScene(main=4)
    for serial in range(1, 5):
        scene.consumes(serial)
    assert scene.on(Fleet.on_recycling_due, 1, "it has run 1000 tasks") == [Start(5, "main", 1)]
    for _ in range(9):
        assert scene.on(Fleet.shrink) == []
    assert scene.consumes(5) == [Drain(1)]
    for ended, drained in ((1, 4), (4, 3), (3, 2)):
        assert scene.on(Fleet.on_ended, ended, 0) == [Drain(drained)]
    assert scene.on(Fleet.on_ended, 2, 0) == []
    assert sorted(scene.fleet.processes) == [5]


def test_places_that_could_not_be_filled_go_together(two: FleetScene) -> None:
    two.refused(Fleet.grow)
    two.refused(Fleet.grow)
    two.on(Fleet.on_recycling_due, 1, "it has run 1000 tasks")
    assert two.refused(Fleet.shrink) == []
    assert two.refused(Fleet.shrink) == []
    two.consumes(5)
    assert two.on(Fleet.on_ended, 1, 0) == []
    assert two.fleet.size == 2


@pytest.mark.parametrize("consumes", [True, False])
def test_what_leaves_by_itself_as_a_failure_again_and_again_is_replaced_ever_more_rarely(consumes: bool) -> None:
    scene = FleetScene(main=1)
    scene.consumes(1)
    serial, pauses = 1, []
    for _ in range(5):
        started = [
            *scene.on(Fleet.on_exiting, serial, "the app's lifespan has ended by itself"),
            *scene.on(Fleet.on_ended, serial, FAILED),
        ]
        began = scene.now
        while not started:
            due = scene.fleet.next_due(scene.now)
            assert due is not None
            started = scene.on(Fleet.tick, after=max(0.0, due - scene.now))
        assert started == [Start(serial + 1, "main", 1)]
        pauses.append(scene.now - began)
        serial += 1
        scene.on(Fleet.on_ready, serial, 30.0)
        if consumes:
            scene.on(Fleet.on_consuming, serial)
    # One that leaves while it consumes has its successor at once, and that one has to wait.
    assert 0 == max(pauses[:2]) < max(pauses[2:4]) < pauses[4]
