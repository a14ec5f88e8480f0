"""What a supervisor decides, step by step, without a process."""

from __future__ import annotations

import pytest

from amqpworker.supervisor.actions import Drain, DumpStacks, EndOverdue, Finish, Interrupt, Kill, Start
from amqpworker.supervisor.fleet import Fleet
from amqpworker.supervisor.slots import Oversize, Stage
from tests.unit.supervisor.fleet_scene import FleetScene


def test_the_first_process_goes_ahead_and_the_others_follow_once_it_consumes() -> None:
    scene = FleetScene(main=3)
    assert scene.first == [Start(1, "main", 1)]
    assert scene.on(Fleet.on_ready, 1, 30.0) == []
    assert scene.on(Fleet.on_consuming, 1) == [Start(2, "main", 2), Start(3, "main", 3)]


def test_each_pool_has_a_first_process_of_its_own() -> None:
    scene = FleetScene(mails=2, reports=1)
    assert scene.first == [Start(1, "mails", 1), Start(2, "reports", 1)]
    assert scene.consumes(2) == []
    assert scene.consumes(1) == [Start(3, "mails", 2)]


def test_a_pool_that_can_never_run_ends_all_of_it_only_while_no_pool_has_consumed() -> None:
    scene = FleetScene(mails=1, reports=1)
    scene.on(Fleet.on_misconfigured, 2, "no such queue")
    assert scene.on(Fleet.on_ended, 2, 2) == [Drain(1)]
    assert scene.on(Fleet.on_ended, 1, 0) == [Finish(2, "no such queue")]

    scene = FleetScene(mails=1, reports=1)
    scene.consumes(1)
    scene.on(Fleet.on_misconfigured, 2, "no such queue")
    assert scene.on(Fleet.on_ended, 2, 2) == []
    assert (scene.field("process_died", "pool"), scene.field("process_died", "reason")) == ("reports", "no such queue")
    assert scene.on(Fleet.tick, after=scene.field("process_died", "retry_in")) == [Start(3, "reports", 1)]


def test_a_process_that_dies_after_it_consumed_is_replaced_at_once(two: FleetScene) -> None:
    assert two.on(Fleet.on_ended, 2, -9) == [Start(3, "main", 2)]
    assert two.field("process_died", "exit_status") == "signal SIGKILL"


def test_what_dies_young_is_started_ever_more_rarely_and_after_a_steady_life_at_once_again(two: FleetScene) -> None:
    pauses = []
    serial = 2
    for _ in range(9):
        two.on(Fleet.on_ended, serial, 1)
        pauses.append(two.field("process_died", "retry_in"))
        started = two.on(Fleet.tick, after=pauses[-1]) or [Start(serial + 1, "main", 2)]
        assert started == [Start(serial + 1, "main", 2)]
        serial += 1
    assert pauses == [0.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    two.consumes(serial)
    two.now += 10.0
    assert two.on(Fleet.on_ended, serial, 1) == [Start(serial + 1, "main", 2)]


def test_a_mistake_in_the_configuration_ends_a_pool_that_has_never_consumed_at_once() -> None:
    scene = FleetScene()
    scene.on(Fleet.on_misconfigured, 1, "There is no module 'shop'.")
    assert scene.on(Fleet.on_ended, 1, 2) == [Finish(2, "There is no module 'shop'.")]


def test_the_same_mistake_does_not_end_a_pool_that_has_consumed(two: FleetScene) -> None:
    two.on(Fleet.on_ended, 2, -9)
    two.on(Fleet.on_misconfigured, 3, "SyntaxError")
    assert two.on(Fleet.on_ended, 3, 2) == []
    assert two.field("process_died", "reason") == "SyntaxError"


def test_exit_code_2_of_a_task_is_a_death_and_only_a_reported_mistake_ends_the_service() -> None:
    scene = FleetScene(main=1)
    assert scene.on(Fleet.on_ended, 1, 2) == []
    assert scene.field("process_died", "exit_status") == "exit code 2"
    assert scene.on(Fleet.tick, after=1.0) == [Start(2, "main", 1)]
    scene.on(Fleet.on_misconfigured, 2, "There is no module 'shop'.")
    assert scene.on(Fleet.on_ended, 2, -9) == [], "killed while it reported that"
    assert scene.on(Fleet.tick, after=2.0) == [Start(3, "main", 1)]
    scene.on(Fleet.on_misconfigured, 3, "There is no module 'shop'.")
    assert scene.on(Fleet.on_ended, 3, 2) == [Finish(2, "There is no module 'shop'.")]


def test_exit_code_2_of_a_task_in_new_code_does_not_end_a_reload_at_once(two: FleetScene) -> None:
    two.on(Fleet.reload)
    assert two.on(Fleet.on_ended, 3, 2) == []
    assert "reload_failed" not in two.words()
    assert two.on(Fleet.tick, after=1.0) == [Start(4, "main", 1)]


def test_a_pool_whose_processes_die_of_their_first_tasks_has_consumed_and_is_not_given_up() -> None:
    scene = FleetScene(main=2)
    started = scene.on(Fleet.on_ended, 1, 2, ran=True)
    numbers = [one.number for one in started if isinstance(one, Start)]
    assert sorted(numbers) == [1, 2], "as after any process that has consumed"
    assert scene.words() == ["pool_started", "process_started", "process_died"]
    for serial in range(2, 30):
        assert not any(isinstance(one, Finish) for one in scene.on(Fleet.on_ended, serial, 66, after=60.0))


def test_a_successor_that_dies_of_its_first_task_leaves_the_process_before_it(two: FleetScene) -> None:
    two.on(Fleet.reload)
    assert two.on(Fleet.on_ended, 3, 66, ran=True) == []
    assert two.on(Fleet.tick, after=1.0) == [Start(4, "main", 1)]


def test_a_pool_that_never_consumes_is_given_up_after_a_bounded_number_of_deaths() -> None:
    scene = FleetScene(main=1)
    for serial in range(1, 8):
        assert scene.on(Fleet.on_ended, serial, -11) == []
        assert scene.on(Fleet.tick, after=60.0) == [Start(serial + 1, "main", 1)]
    (finish,) = scene.on(Fleet.on_ended, 8, -11)
    assert isinstance(finish, Finish)
    assert finish.code == 1
    assert "8 have ended, the last by signal SIGSEGV" in finish.reason


def test_a_process_that_does_not_become_ready_in_time_is_killed_with_its_stacks_and_counts_as_a_death() -> None:
    scene = FleetScene(main=1)
    assert scene.on(Fleet.tick, after=59.9) == []
    assert scene.fleet.next_due(scene.now) == pytest.approx(160.0)
    assert scene.on(Fleet.tick, after=0.1) == [DumpStacks(1)]
    assert scene.on(Fleet.tick, after=1.0) == [Kill(1)]
    assert scene.on(Fleet.on_ended, 1, -9) == []
    assert scene.field("process_stalled", "reason") == "it was not ready within 60 s"
    assert scene.field("process_killed", "reason") == "it was not ready within 60 s"
    assert scene.field("process_died", "reason") == "it was not ready within 60 s"
    assert scene.on(Fleet.tick, after=1.0) == [Start(2, "main", 1)]


def test_a_process_that_waits_for_the_broker_after_it_was_ready_may_take_as_long_as_that_takes() -> None:
    scene = FleetScene(main=1)
    scene.on(Fleet.on_ready, 1, 30.0, after=59.0)
    assert scene.on(Fleet.tick, after=86_400.0) == []
    assert scene.words() == []


def test_each_pool_has_a_start_timeout_of_its_own() -> None:
    scene = FleetScene(main=1, patient=1)
    assert scene.on(Fleet.tick, after=60.0) == [DumpStacks(1)]
    assert scene.on(Fleet.tick, after=540.0) == [DumpStacks(2), Kill(1)]


def test_time_in_which_the_supervisor_was_stopped_does_not_count_as_starting() -> None:
    scene = FleetScene(main=1)
    assert scene.on(Fleet.on_clock_gap, 1000.0, after=1000.0) == []
    assert scene.on(Fleet.tick, after=59.0) == []
    assert scene.on(Fleet.tick, after=1.0) == [DumpStacks(1)]


def test_a_process_that_is_asked_to_stop_while_it_starts_is_not_judged_by_its_start() -> None:
    scene = FleetScene(main=1)
    scene.on(Fleet.stop, "signal SIGTERM", after=30.0)
    assert scene.on(Fleet.tick, after=39.0) == []
    assert scene.on(Fleet.tick, after=1.0) == [Kill(1)]
    assert scene.field("process_killed", "reason") == "it did not stop in time"


def test_a_reload_whose_new_code_never_becomes_ready_keeps_the_old_processes_and_logs_it(two: FleetScene) -> None:
    assert two.on(Fleet.reload) == [Start(3, "main", 1)]
    for serial in (3, 4, 5):
        assert two.on(Fleet.tick, after=60.0) == [DumpStacks(serial)]
        assert two.on(Fleet.tick, after=1.0) == [Kill(serial)]
        two.on(Fleet.on_ended, serial, -9)
        two.on(Fleet.tick, after=60.0)
    assert two.field("reload_failed", "reason") == "it was not ready within 60 s"
    assert sorted(two.fleet.processes) == [1, 2]


def test_where_the_machine_has_no_room_for_a_process_it_is_tried_again_ever_more_slowly() -> None:
    scene = FleetScene(main=1)
    for serial, pause in ((1, 1.0), (2, 2.0), (3, 4.0)):
        assert scene.on(Fleet.on_not_started, serial, "no room") == []
        assert scene.field("process_not_started", "retry_in") == pause
        assert scene.on(Fleet.tick, after=pause) == [Start(serial + 1, "main", 1)]


def test_a_reload_replaces_one_process_after_the_other_and_drains_none_before_its_successor_consumes(
    two: FleetScene,
) -> None:
    assert two.on(Fleet.reload) == [Start(3, "main", 1)]
    assert two.on(Fleet.on_ready, 3, 30.0) == []
    assert two.on(Fleet.on_consuming, 3) == [Drain(1)]
    assert two.on(Fleet.on_ended, 1, 0) == [Start(4, "main", 2)]
    assert two.consumes(4) == [Drain(2)]
    assert two.fleet.reloading
    assert two.on(Fleet.on_ended, 2, 0) == []
    assert not two.fleet.reloading


def test_a_reload_whose_new_code_cannot_start_keeps_the_old_processes_and_logs_it(two: FleetScene) -> None:
    two.on(Fleet.reload)
    two.on(Fleet.on_misconfigured, 3, "SyntaxError in shop.py")
    assert two.on(Fleet.on_ended, 3, 2) == []
    assert two.field("reload_failed", "reason") == "SyntaxError in shop.py"
    assert two.on(Fleet.tick, after=3600.0) == []
    assert sorted(two.fleet.processes) == [1, 2]


def test_a_reload_whose_new_processes_die_is_given_up_after_three(two: FleetScene) -> None:
    two.on(Fleet.reload)
    for serial in (3, 4):
        assert two.on(Fleet.on_ended, serial, 1) == []
        assert two.on(Fleet.tick, after=60.0) == [Start(serial + 1, "main", 1)]
    assert two.on(Fleet.on_ended, 5, 1) == []
    assert "reload_failed" in two.words()


def test_a_second_reload_during_the_first_replaces_what_the_first_has_started(two: FleetScene) -> None:
    two.on(Fleet.reload)
    two.consumes(3)
    assert two.on(Fleet.reload) == []
    assert two.on(Fleet.on_ended, 1, 0) == [Start(4, "main", 2)]
    two.consumes(4)
    assert two.on(Fleet.on_ended, 2, 0) == [Start(5, "main", 1)]
    two.consumes(5)
    assert two.on(Fleet.on_ended, 3, 0) == []
    assert {one.generation for one in two.fleet.processes.values()} == {3}


def test_a_process_that_dies_while_its_successor_starts_leaves_it_the_place(two: FleetScene) -> None:
    two.on(Fleet.reload)
    assert two.on(Fleet.on_ended, 1, -9) == [Start(4, "main", 2)], "the next may begin: two are there, and one more"
    assert two.consumes(3) == []
    assert two.consumes(4) == [Drain(2)]


def test_what_has_outgrown_its_limits_is_drained_once_its_successor_consumes(two: FleetScene) -> None:
    assert two.on(Fleet.on_recycling_due, 2, "it has run 1000 tasks") == [Start(3, "main", 2)]
    assert two.on(Fleet.on_recycling_due, 2, "it has run 1001 tasks") == []
    assert two.consumes(3) == [Drain(2)]
    assert two.on(Fleet.on_ended, 2, 0) == []
    assert two.field("process_replaced", "reason") == "it has run 1000 tasks"


@pytest.mark.parametrize("at_start", [True, False])
def test_a_memory_limit_that_each_process_reaches_soon_is_backed_off_while_all_of_them_consume(at_start: bool) -> None:
    scene, large = FleetScene(main=2), Oversize(58, 10, at_start)
    scene.consumes(1)
    scene.consumes(2)
    starts = []
    for _ in range(200):
        scene.now += 0.1
        consuming = [one for one in scene.fleet.processes.values() if one.stage is Stage.CONSUMING]
        assert len(consuming) >= 2
        for one in consuming:
            for action in scene.on(Fleet.on_recycling_due, one.serial, "it holds 58 MiB of memory", oversize=large):
                assert isinstance(action, Start)
                starts.append(action)
                scene.consumes(action.serial)
        for serial in [one.serial for one in scene.fleet.processes.values() if one.stage is Stage.DRAINING]:
            scene.on(Fleet.on_ended, serial, 0)
    assert 2 <= len(starts) <= 5
    assert scene.words().count("max_memory_too_low") == (2 + len(starts)) * at_start
    if at_start:
        assert [scene.field("max_memory_too_low", name) for name in ("limit", "needed")] == ["10 MiB", "58 MiB"]


def test_a_process_that_outgrows_its_memory_later_is_replaced_at_once_and_a_reload_waits_for_no_memory(
    two: FleetScene,
) -> None:
    grown = Oversize(510, 500, at_start=False)
    assert two.on(Fleet.on_recycling_due, 1, "it holds 510 MiB of memory", oversize=grown, after=10.0) == [
        Start(3, "main", 1)
    ]
    two.consumes(3)
    two.on(Fleet.on_ended, 1, 0)
    at_once = Oversize(510, 500, at_start=True)
    assert two.on(Fleet.on_recycling_due, 3, "it holds 510 MiB of memory", oversize=at_once) == []
    assert two.fleet.next_due(two.now) == two.now + 2.0
    assert two.on(Fleet.reload) == [Start(4, "main", 1)]
    assert "max_memory_too_low" in two.words()


def test_a_process_that_leaves_by_itself_is_not_asked_to_and_its_successor_starts_meanwhile(two: FleetScene) -> None:
    assert two.on(Fleet.on_exiting, 2, "a task ran over its hard limit") == [Start(3, "main", 2)]
    assert two.consumes(3) == []
    assert two.on(Fleet.on_ended, 2, 4) == []
    assert sorted(two.fleet.processes) == [1, 3]


def test_what_has_stalled_writes_its_stacks_and_is_killed_a_moment_later(two: FleetScene) -> None:
    assert two.on(Fleet.on_stalled, 2, "its main thread has made no progress for 61 s") == [DumpStacks(2)]
    assert two.on(Fleet.on_stalled, 2, "its main thread has made no progress for 61 s") == []
    assert two.on(Fleet.tick, after=1.0) == [Kill(2)]
    assert two.on(Fleet.on_ended, 2, -9) == [Start(3, "main", 2)]


def test_one_process_more_and_one_less(two: FleetScene) -> None:
    assert two.on(Fleet.grow) == [Start(3, "main", 3)]
    two.consumes(3)
    assert two.on(Fleet.shrink) == [Drain(3)]
    assert two.on(Fleet.on_ended, 3, 0) == []
    assert two.on(Fleet.shrink) == [Drain(2)]
    assert two.on(Fleet.on_ended, 2, 0) == []
    assert two.on(Fleet.shrink) == [], "one stays"


def test_a_stop_drains_all_and_ends_with_the_worst_of_their_codes(two: FleetScene) -> None:
    assert two.on(Fleet.stop, "signal SIGTERM") == [Drain(1), Drain(2)]
    assert two.on(Fleet.on_ended, 1, 3) == []
    assert two.on(Fleet.on_ended, 2, 0) == [Finish(3)]


@pytest.mark.parametrize("code", [1, 2, 77, 255, -11])
def test_an_exit_code_of_a_task_during_a_drain_means_that_it_was_abandoned_and_is_not_the_pools(
    two: FleetScene, code: int
) -> None:
    two.on(Fleet.stop, "signal SIGTERM")
    two.on(Fleet.on_ended, 1, code)
    assert two.on(Fleet.on_ended, 2, 0) == [Finish(3)]


def test_a_mistake_ends_a_pool_by_its_own_exit_code_however_the_other_processes_end() -> None:
    scene = FleetScene(mails=1, reports=1)
    scene.on(Fleet.on_ready, 1, 30.0)
    scene.on(Fleet.on_misconfigured, 2, "no such queue")
    scene.on(Fleet.on_ended, 2, 2)
    assert scene.on(Fleet.on_ended, 1, -9) == [Finish(2, "no such queue")]


def test_what_does_not_end_after_its_drain_timeout_is_killed(two: FleetScene) -> None:
    two.on(Fleet.stop, "signal SIGTERM")
    two.on(Fleet.on_ended, 1, 0)
    assert two.on(Fleet.tick, after=39.9) == []
    assert two.on(Fleet.tick, after=0.2) == [Kill(2)]
    assert two.on(Fleet.on_ended, 2, -9) == [Finish(3)]


def test_a_second_interrupt_has_the_processes_abandon_what_runs(two: FleetScene) -> None:
    two.on(Fleet.stop, "signal SIGINT")
    assert two.on(Fleet.stop_now) == [Interrupt(1), Interrupt(2)]
    assert two.on(Fleet.stop_now) == []
    assert two.on(Fleet.tick, after=2.0) == [Kill(1), Kill(2)]


def test_a_process_that_was_still_starting_at_a_stop_has_nothing_to_abandon() -> None:
    scene = FleetScene(main=1)
    assert scene.on(Fleet.stop, "signal SIGTERM") == [Drain(1)]
    assert scene.on(Fleet.on_ended, 1, -15) == [Finish(0)]


def test_a_mistake_that_is_found_during_a_stop_abandons_nothing_either() -> None:
    scene = FleetScene(main=1)
    scene.on(Fleet.on_ready, 1, 30.0)
    scene.on(Fleet.stop, "signal SIGTERM")
    scene.on(Fleet.on_misconfigured, 1, "no such queue")
    assert scene.on(Fleet.on_ended, 1, 2) == [Finish(0)]


def test_what_a_process_reported_before_its_end_may_be_read_after_it(two: FleetScene) -> None:
    two.on(Fleet.on_ended, 2, -9)
    assert two.on(Fleet.on_ready, 2, 5.0) == []
    assert two.on(Fleet.on_consuming, 2) == []
    for late in (Fleet.on_misconfigured, Fleet.on_exiting, Fleet.on_stalled, Fleet.on_recycling_due):
        assert two.on(late, 2, "") == []


def test_processes_whose_tasks_do_not_end_are_replaced_one_a_minute(two: FleetScene) -> None:
    assert two.on(Fleet.on_overdue, 2) == [EndOverdue(2)]
    assert two.on(Fleet.on_overdue, 1, after=30.0) == []
    assert two.on(Fleet.on_exiting, 2, "a task does not end") == [Start(3, "main", 2)]
    assert two.on(Fleet.on_overdue, 2, after=31.0) == [], "it leaves already"
    assert two.on(Fleet.on_overdue, 1) == [EndOverdue(1)]
    two.now += 61.0
    two.on(Fleet.stop, "signal SIGTERM")
    assert two.on(Fleet.on_overdue, 1) == []
