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
