"""What a worker reports of tasks that it does not have."""

from __future__ import annotations

import pytest

from amqpworker import App
from amqpworker.errors import ConfigError
from amqpworker.worker.options import QueueOptions, WorkerOptions
from amqpworker.worker.subscriptions import queue_assignments
from amqpworker.worker.unknown_tasks import advice, similar_names

KNOWN = ["billing.tasks.send", "shop.tasks.charge", "shop.tasks.send", "other.send"]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("tasks.send", ["billing.tasks.send", "shop.tasks.send", "other.send"]),
        ("src.shop.tasks.charge", ["shop.tasks.charge"]),
        ("charge", ["shop.tasks.charge"]),
        ("shop.tasks.refund", []),
        ("shop.tasks.send", ["billing.tasks.send", "other.send"]),
        ("", []),
    ],
)
def test_a_name_is_found_under_other_modules_the_nearest_first(name: str, found: list[str]) -> None:
    assert similar_names(name, KNOWN) == found


def test_the_advice_for_an_unknown_task_names_a_similar_task_or_asks_for_its_module() -> None:
    told = advice("tasks.charge", KNOWN)
    assert told.startswith("it has 'shop.tasks.charge': import the module by one name everywhere")
    assert "aliases=['tasks.charge']" in told
    assert advice("shop.refunds.refund", KNOWN) == "is its module imported, or named in App(modules=[…])?"


@pytest.mark.parametrize("queues", [(), ("emails",)])
def test_an_app_without_tasks_is_refused_with_advice(queues: tuple[str, ...]) -> None:
    app = App("amqp://localhost")
    app.queue("emails")
    options = WorkerOptions.model_validate({"app": "shop.app:app", "queues": queues})
    with pytest.raises(ConfigError, match=r"Name the modules that define tasks in App\(modules=\['shop\.tasks', …\]\)"):
        queue_assignments(app, options)


def test_modules_that_define_no_task_are_named() -> None:
    app = App("amqp://localhost", modules=["shop.models"])
    with pytest.raises(
        ConfigError, match=r"^'a:b' has no tasks, nor have the modules of App\(modules=\['shop\.models'\]\): "
    ):
        queue_assignments(app, WorkerOptions(app="a:b"))


def test_a_queue_that_the_app_does_not_know_is_refused_with_advice() -> None:
    app = App("amqp://localhost")
    app.task(name="a.b", queue="emails")(lambda: None)
    options = WorkerOptions.model_validate({"app": "a:app", "queues": ("reports",)})
    with pytest.raises(ConfigError, match=r"it has emails\. If its tasks are in a module .* App\(modules=\[…\]\)\."):
        queue_assignments(app, options)


@pytest.mark.parametrize("text", ["emails:prefetch=4", "emails,prefetch=4", "emails:,prefetch=x", "emails:2,threads=4"])
def test_settings_of_a_queue_in_another_form_are_refused_with_the_right_one(text: str) -> None:
    app = App("amqp://localhost")
    app.task(name="a.b", queue="emails")(lambda: None)
    options = WorkerOptions.model_validate({"app": "a:app", "queues": (QueueOptions.parse(text),)})
    with pytest.raises(
        ConfigError, match=r"but 'emails': settings have the form -q emails:THREADS,prefetch=N, or -q emails:,"
    ):
        queue_assignments(app, options)


def test_a_queue_whose_name_looks_like_settings_is_consumed() -> None:
    app = App("amqp://localhost")
    for number, name in enumerate(("emails", "emails,kind=a")):
        app.task(name=f"a.b{number}", queue=name)(lambda: None)
    options = WorkerOptions.model_validate({"app": "a:app", "queues": (QueueOptions.parse("emails,kind=a"),)})
    assert [one.queue for one in queue_assignments(app, options)] == ["emails,kind=a"]
