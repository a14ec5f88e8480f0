"""What a supervisor makes of changes that come together: reloads, one process less, and a machine without room."""

from __future__ import annotations

import pytest

from amqpworker.ipc.report import FAILED
from amqpworker.supervisor.fleet_events import (
    Consuming,
    Drain,
    Ended,
    Exiting,
    Grow,
    Kill,
    Misconfigured,
    Ready,
    RecyclingDue,
    Reload,
    Shrink,
    Start,
    Tick,
)
from tests.unit.supervisor.fleet_scene import Scene

# ---- reloads ----------------------------------------------------------------------------------------------------------


def test_a_reload_that_finds_no_room_for_a_process_goes_on_when_there_is(two: Scene) -> None:
    assert two.refused(Reload()) == [Start(3, "main", 1)]
    assert two.fleet.reloading
    assert two.fleet.next_due(two.now) == two.now + 1.0
    assert two.refused(Tick(), after=1.0) == [Start(4, "main", 1)]
    assert two.on(Tick(), after=2.0) == [Start(5, "main", 1)]
    assert two.consumes(5) == [Drain(1)]
    assert two.on(Ended(1, 0)) == [Start(6, "main", 2)]


def test_a_reload_that_fails_before_the_broker_was_ever_reached_leaves_the_process_that_waits_for_it() -> None:
    scene = Scene(main=1)
    scene.on(Ready(1, 30.0))
    assert scene.on(Reload()) == [Start(2, "main", 1)]
    scene.on(Misconfigured(2, "SyntaxError in shop.py"))
    assert scene.on(Ended(2, 2)) == []
    assert scene.field("reload_failed", "reason") == "SyntaxError in shop.py"
    assert scene.on(Consuming(1)) == []
    assert sorted(scene.fleet.processes) == [1]


def test_what_a_reload_started_in_vain_is_no_reason_to_give_up_what_waits_for_the_broker() -> None:
    scene = Scene(main=1)
    scene.on(Ready(1, 30.0))
    serial = 1
    for _ in range(3):
        started = scene.on(Reload())
        for _ in range(3):
            serial += 1
            assert started == [Start(serial, "main", 1)]
            assert scene.on(Ended(serial, 1)) == []
            started = scene.on(Tick(), after=80.0)
    assert scene.words().count("reload_failed") == 3
    assert sorted(scene.fleet.processes) == [1]


def test_what_has_outgrown_its_limits_is_replaced_when_there_is_room(two: Scene) -> None:
    assert two.refused(RecyclingDue(2, "it has run 1000 tasks")) == [Start(3, "main", 2)]
    assert two.on(Tick(), after=1.0) == [Start(4, "main", 2)]
    assert two.consumes(4) == [Drain(2)]


@pytest.mark.parametrize("ready", [False, True])
def test_a_reload_takes_back_what_the_last_one_has_started_and_what_does_not_consume_yet(
    two: Scene, ready: bool
) -> None:
    two.on(Reload())
    if ready:
        two.on(Ready(3, 30.0))
    assert two.on(Reload(), after=600.0 if ready else 1.0) == [Drain(3)]
    assert two.on(Reload()) == [], "asked once"
    assert two.on(Consuming(3)) == [], "too late"
    assert two.on(Ended(3, 0)) == [Start(4, "main", 2)]
    assert two.consumes(4) == [Drain(2)]
    assert two.on(Ended(2, 0)) == [Start(5, "main", 1)]
    assert two.consumes(5) == [Drain(1)]
    two.on(Ended(1, 0))
    assert {one.generation for one in two.fleet.processes.values()} == {4}
    assert not two.fleet.reloading


def test_a_reload_takes_back_the_successor_of_what_has_outgrown_its_limits_too(two: Scene) -> None:
    assert two.on(RecyclingDue(1, "it has run 1000 tasks")) == [Start(3, "main", 1)]
    two.on(Ready(3, 30.0))
    assert two.on(Reload(), after=600.0) == [Drain(3)]
    assert two.on(Ended(3, 0)) == [Start(4, "main", 1)]
    assert two.consumes(4) == [Drain(1)]


def test_a_reload_does_not_wait_for_a_new_process_that_does_not_even_end(two: Scene) -> None:
    two.on(Reload())
    two.on(Ready(3, 5.0))
    assert two.on(Reload()) == [Drain(3)]
    assert two.on(Tick(), after=15.0) == [Kill(3)]
    assert two.on(Ended(3, -9)) == [Start(4, "main", 2)]
    assert "reload_failed" not in two.words()


def test_a_pool_whose_new_processes_wait_for_their_broker_holds_up_no_other_pool() -> None:
    scene = Scene(away=1, main=1)
    for serial in (1, 2):
        scene.consumes(serial)
    assert scene.on(Reload()) == [Start(3, "away", 1), Start(4, "main", 1)], "one more in each pool"
    scene.on(Ready(3, 30.0))
    assert scene.consumes(4) == [Drain(2)]
    scene.on(Ended(2, 0))
    assert scene.on(RecyclingDue(4, "it holds 500 MiB of memory"), after=3600.0) == [Start(5, "main", 1)]
    assert scene.consumes(5) == [Drain(4)]
    assert scene.fleet.reloading


def test_a_reload_that_fails_in_one_pool_goes_on_in_the_others() -> None:
    scene = Scene(broken=1, main=1)
    for serial in (1, 2):
        scene.consumes(serial)
    scene.on(Reload())
    scene.on(Misconfigured(3, "SyntaxError"))
    assert scene.on(Ended(3, 2)) == []
    assert scene.field("reload_failed", "pool") == "broken"
    assert scene.consumes(4) == [Drain(2)]
    scene.on(Ended(2, 0))
    assert sorted(scene.fleet.processes) == [1, 4]
    assert not scene.fleet.reloading


# ---- one process less -------------------------------------------------------------------------------------------------


def test_a_place_that_could_not_be_filled_goes_without_another_start(two: Scene) -> None:
    assert two.refused(Grow()) == [Start(3, "main", 3)]
    assert two.on(Shrink(), after=0.5) == []
    assert two.said[-1].fields == {"pool": "main", "processes": 2}
    assert two.on(Tick(), after=60.0) == []
    assert two.fleet.next_due(two.now) is None


def test_a_place_that_is_to_go_and_has_died_is_not_filled_again_while_another_change_is_under_way(two: Scene) -> None:
    assert two.on(Reload()) == [Start(3, "main", 1)]
    two.on(Shrink())
    assert two.on(Ended(2, -9)) == []
    assert two.consumes(3) == [Drain(1)]
    assert two.on(Ended(1, 0)) == []
    assert sorted(two.fleet.processes) == [3]


def test_so_many_processes_go_as_were_asked_to_also_while_another_change_is_under_way_and_one_stays() -> None:
    scene = Scene(main=4)
    for serial in range(1, 5):
        scene.consumes(serial)
    assert scene.on(RecyclingDue(1, "it has run 1000 tasks")) == [Start(5, "main", 1)]
    for _ in range(9):
        assert scene.on(Shrink()) == []
    assert scene.consumes(5) == [Drain(1)]
    for ended, drained in ((1, 4), (4, 3), (3, 2)):
        assert scene.on(Ended(ended, 0)) == [Drain(drained)]
    assert scene.on(Ended(2, 0)) == []
    assert sorted(scene.fleet.processes) == [5]


def test_places_that_could_not_be_filled_go_together(two: Scene) -> None:
    two.refused(Grow())
    two.refused(Grow())
    two.on(RecyclingDue(1, "it has run 1000 tasks"))
    assert two.refused(Shrink()) == []
    assert two.refused(Shrink()) == []
    two.consumes(5)
    assert two.on(Ended(1, 0)) == []
    assert two.fleet.size == 2


@pytest.mark.parametrize("consumes", [True, False])
def test_what_leaves_by_itself_as_a_failure_again_and_again_is_replaced_ever_more_rarely(consumes: bool) -> None:
    scene = Scene(main=1)
    scene.consumes(1)
    serial, pauses = 1, []
    for _ in range(5):
        started = [
            *scene.on(Exiting(serial, "the app's lifespan has ended by itself")),
            *scene.on(Ended(serial, FAILED)),
        ]
        began = scene.now
        while not started:
            due = scene.fleet.next_due(scene.now)
            assert due is not None
            started = scene.on(Tick(), after=max(0.0, due - scene.now))
        assert started == [Start(serial + 1, "main", 1)]
        pauses.append(scene.now - began)
        serial += 1
        scene.on(Ready(serial, 30.0))
        if consumes:
            scene.on(Consuming(serial))
    # One that leaves while it consumes has its successor at once, and that one has to wait.
    assert 0 == max(pauses[:2]) < max(pauses[2:4]) < pauses[4]
