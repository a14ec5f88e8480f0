"""Which queues are declared: those that a task, `app.remote` or `app.queue` names, and no other."""

from __future__ import annotations

import pytest

from amqpworker import App, ConfigError, Settings
from amqpworker.routing.queues import Plan
from amqpworker.routing.topology import base, cancelled, ladder, scheduler, work_queue


def test_a_queue_needs_its_topology_and_a_delay_the_ladder() -> None:
    plan = Plan("amqpworker", declare=True)
    plan.add_queue("work")
    (requirement,) = plan.requirements("work", delayed=False)
    assert requirement.make_topology() == base("amqpworker") + work_queue("amqpworker", "work")
    assert plan.requirements("work", delayed=True) == (requirement, plan.ladder)
    assert plan.ladder.make_topology() == base("amqpworker") + ladder("amqpworker")
    assert plan.worker_requirements("work") == (requirement, plan.ladder)


def test_an_unnamed_queue_needs_nothing_but_the_ladder_of_a_delay() -> None:
    plan = Plan("amqpworker", declare=True)
    assert plan.requirements("slip", delayed=False) == ()
    assert plan.requirements("slip", delayed=True) == (plan.ladder,)


def test_without_declare_nothing_is_needed() -> None:
    plan = Plan("amqpworker", declare=False)
    plan.add_queue("work")
    assert plan.requirements("work", delayed=True) == plan.worker_requirements("work") == ()


def test_whatever_names_a_queue_plans_it() -> None:
    app = App("amqp://127.0.0.1:1/", default_queue="usual", settings=Settings())
    app.task(name="a")(lambda: None)
    app.task(name="b", queue="tasks")(lambda: None)
    app.remote(name="c", queue="remotes")(lambda: None)
    app.queue("named")
    app.tasks["a"].options(queue="slip")
    assert sorted(app.plan.queues) == ["named", "remotes", "tasks", "usual"]
    assert {one.name for one in app.plan.whole().queues} >= {
        "named",
        "named.dead",
        "usual.dead",
        "amqpworker.delay.30",
    }


def app_with(**settings: bool) -> App:
    return App("amqp://127.0.0.1:1/", settings=Settings(**settings))


@pytest.mark.parametrize("first", ["task", "bound"])
def test_a_task_that_only_names_a_queue_states_nothing_about_its_bound(first: str) -> None:
    app = app_with()
    if first == "task":
        app.task(name="a", queue="work")(lambda: None)
    assert app.queue("work", max_length=10) == "work"
    app.remote(name="b", queue="work")(lambda: None)
    app.queue("work")
    app.queue("work", max_length=10)
    (requirement,) = app.plan.requirements("work", delayed=False)
    assert requirement.make_topology() == base("amqpworker") + work_queue("amqpworker", "work", 10)
    assert requirement.bounded == ("amqpworker.tasks", "work")
    assert app.plan.due_queue("work") == "work.due"
    assert app.plan.due_queue("another") is None


def test_naming_a_queue_again_does_not_have_it_declared_again() -> None:
    app = app_with()
    app.queue("work", max_length=10)
    before = app.plan.requirements("work", delayed=False)
    app.queue("work")
    assert app.plan.requirements("work", delayed=False) == before


def test_two_different_bounds_of_one_queue_are_an_error_at_once() -> None:
    app = app_with()
    app.queue("work", max_length=10)
    with pytest.raises(ConfigError, match="Queue 'work' has max_length=10 already, and now max_length=20"):
        app.queue("work", max_length=20)
    app.queue("other", declare=False)
    with pytest.raises(ConfigError, match="Queue 'other' has declare=False already"):
        app.queue("other", max_length=5, declare=True)
    assert app.plan.due_queue("other") is None


@pytest.mark.parametrize("bound", [0, -1, True, 1.0, "10", 2_000_000_001])
def test_a_bound_that_no_queue_can_have_is_refused(bound: object) -> None:
    app = app_with()
    with pytest.raises(ConfigError, match=r"the bound of a queue is an int from 1 to 2000000000"):
        app.queue("work", max_length=bound)  # type: ignore[arg-type]
    assert app.plan.queues == {}


@pytest.mark.parametrize("setting", [True, False])
def test_a_queue_that_is_left_to_another_app_is_never_declared_and_its_bound_is_known(setting: bool) -> None:
    app = app_with(declare=setting)
    app.queue("work", max_length=10, declare=False)
    (requirement,) = app.plan.requirements("work", delayed=False)
    assert not requirement.declares
    assert requirement.bounded == ("amqpworker.tasks", "work")
    assert list(requirement.make_topology()) == []
    assert app.plan.worker_requirements("work") == ((app.plan.ladder,) if setting else ())
    assert not [queue for queue in app.plan.whole().queues if queue.name.startswith("work")]
    app.queue("named", declare=False)
    assert app.plan.requirements("named", delayed=False) == ()


def test_without_declare_a_queue_may_still_be_declared_and_a_bound_is_known() -> None:
    app = app_with(declare=False)
    app.queue("own", declare=True)
    assert [one.declares for one in app.plan.requirements("own", delayed=True)] == [True]
    app.queue("work", max_length=10)
    assert [one.declares for one in app.plan.requirements("work", delayed=True)] == [False]
    assert {"work", "work.due", "own"} <= {queue.name for queue in app.plan.whole().queues}


@pytest.mark.parametrize("name", ["", "amq.gen", "x.dead", "x.due", "x" * 252, "amqpworker.parked", "a\nb", "\ud800"])
def test_a_name_that_no_queue_can_have_is_refused_where_it_is_given(name: str) -> None:
    app = App("amqp://127.0.0.1:1/")
    with pytest.raises(ConfigError):
        app.queue(name)
    with pytest.raises(ConfigError):
        app.task(name="a", queue=name)(lambda: None)
    assert app.plan.queues == {}


def test_the_plan_of_a_namespace_names_only_its_own() -> None:
    plan = Plan("acme", declare=True)
    plan.add_queue("work")
    names = [one.name for one in (*plan.whole().exchanges, *plan.whole().queues)]
    assert all(name.startswith("acme.") or name in {"work", "work.dead"} for name in names)


def test_what_the_app_needs_includes_the_schedulers_that_are_named() -> None:
    plan = Plan("acme", declare=True)
    plan.add_queue("work")
    of_both = scheduler("acme", "main") + scheduler("acme", "other")
    assert plan.whole(["main", "other"]) == plan.whole() + of_both
    assert [queue.name for queue in of_both.queues] == ["acme.schedule.main", "acme.schedule.other"]
    assert of_both.bindings[0].routing_key == "main"


@pytest.mark.parametrize("name", ["", "x" * 250, "a\nb", "\ud800", "amq.main"])
def test_a_name_that_no_scheduler_can_have_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="Scheduler name must"):
        Plan("acme", declare=True).whole([name])


def test_the_streams_are_a_part_of_the_whole_and_required_only_if_the_app_declares() -> None:
    plan = Plan("acme", declare=True)
    assert {"acme.control", "acme.cancelled"} <= {one.name for one in plan.whole().queues}
    assert plan.if_declared(plan.control) == (plan.control,)
    assert plan.cancelled.make_topology() == base("acme") + cancelled("acme")
    assert Plan("acme", declare=False).if_declared(plan.control) == ()
