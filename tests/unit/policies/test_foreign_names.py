"""What is reported of a name that Celery or Dramatiq has, and amqpworker has not."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from collections.abc import Mapping
from typing import Any

import pytest

from amqpworker import App, InvalidArguments, RetryLater
from amqpworker.client.sent import NO_ORIGIN, Sent
from amqpworker.model.message import Delivery, Properties
from amqpworker.policies import foreign_names
from amqpworker.settings import Settings
from amqpworker.task import RemoteTask
from amqpworker.worker.context import Run
from tests.unit.worker.settling import EXAMPLE

app = App("amqp://127.0.0.1:1/")


@app.task(name="shop.welcome", queue="emails")
def welcome(user_id: int) -> str:
    return str(user_id)


def a_run() -> Run:
    return Run(EXAMPLE, Delivery(1, False, "", "work", Properties(), b"{}"), "id", 1, 0.0, 0.0)


OBJECTS: list[tuple[str, Any, Mapping[str, str]]] = [
    ("Task 'shop.welcome'", welcome, foreign_names.TASK_ATTRIBUTES),
    ("Task 'shop.welcome' with these options", welcome.options(delay=5), foreign_names.TASK_ATTRIBUTES),
    ("Task 'shop.welcome' with these options", welcome.options(timeout=5), foreign_names.TASK_ATTRIBUTES),
    ("Sent", Sent[None]("42", "shop.welcome", NO_ORIGIN), foreign_names.SENT_ATTRIBUTES),
    ("App", app, foreign_names.APP_ATTRIBUTES),
    ("The current run", a_run(), foreign_names.RUN_ATTRIBUTES),
]


def test_an_option_of_a_task_that_others_have_is_refused_with_what_it_is_here() -> None:
    for name, hint in foreign_names.TASK_OPTIONS.items():
        with pytest.raises(TypeError, match=re.escape(f"task() has no option {name!r}: {hint}.")):
            app.task(**{name: 1})


def test_an_option_of_a_message_that_others_have_is_refused_with_what_it_is_here() -> None:
    for name, hint in foreign_names.MESSAGE_OPTIONS.items():
        with pytest.raises(TypeError, match=re.escape(f"options() has no option {name!r}: {hint}.")):
            welcome.options(**{name: 1})


CALLS: list[tuple[str, Any, Mapping[str, str]]] = [
    ("App", App, foreign_names.APP_OPTIONS),
    ("remote", app.remote, foreign_names.REMOTE_OPTIONS),
    ("schedule", app.schedule, foreign_names.SCHEDULE_OPTIONS),
    ("schedule", welcome.schedule, foreign_names.SCHEDULE_OPTIONS),
    ("schedule", welcome.options(expires=5).schedule, foreign_names.SCHEDULE_OPTIONS),
    ("result", Sent[None]("42", "shop.welcome", NO_ORIGIN).result, foreign_names.RESULT_OPTIONS),
    ("aresult", Sent[None]("42", "shop.welcome", NO_ORIGIN).aresult, foreign_names.RESULT_OPTIONS),
]


@pytest.mark.parametrize(("named", "call", "hints"), CALLS, ids=lambda value: value if isinstance(value, str) else "")
def test_an_option_that_others_have_is_refused_with_what_it_is_here_before_a_missing_one_is(
    named: str, call: Any, hints: Mapping[str, str]
) -> None:
    for name, hint in hints.items():
        with pytest.raises(TypeError, match=f"^{re.escape(f'{named}() has no option {name!r}: {hint}.')}$"):
            call(**{name: 1})


def test_any_other_option_of_the_app_gets_the_name_that_is_similar() -> None:
    wrong: dict[str, Any] = {"result": "sqlite:///results.db"}
    with pytest.raises(TypeError, match=r"^App\(\) has no option 'result': did you mean results=…\?$"):
        App("amqp://127.0.0.1:1/", **wrong)
    wrong = {"uri": "amqp://127.0.0.1:1/"}
    with pytest.raises(TypeError, match=r"^App\(\) has no option 'uri': did you mean url=…\?$"):
        App(**wrong)
    wrong = {"colour": "red"}
    with pytest.raises(TypeError, match=r"^remote\(\) has no option 'colour'; it has name, queue, version\.$"):
        app.remote(name="billing.charge", **wrong)


@pytest.mark.parametrize(
    ("named", "thing", "hints"), OBJECTS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_an_attribute_that_others_have_is_refused_with_what_it_is_here(
    named: str, thing: Any, hints: Mapping[str, str]
) -> None:
    for name, hint in hints.items():
        with pytest.raises(AttributeError, match=f"^{re.escape(f'{named} has no attribute {name!r}: {hint}.')}$"):
            getattr(thing, name)


@pytest.mark.parametrize(
    ("named", "thing", "hints"), OBJECTS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_an_attribute_without_a_hint_is_missing_as_usual(named: str, thing: Any, hints: Mapping[str, str]) -> None:
    assert not hasattr(thing, "colour")
    with pytest.raises(AttributeError, match=f"^{re.escape(named)} has no attribute 'colour'"):
        _ = thing.colour
    assert "colour" not in hints


def test_a_signature_in_celery_s_sense_is_refused_although_a_task_has_an_attribute_of_that_name() -> None:
    with pytest.raises(
        TypeError, match=r"^Task 'shop\.welcome' has no method 'signature': use \.message\(…\), which app"
    ):
        welcome.signature(42)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("name", "advice"),
    [("delay", "use options(delay=…)"), ("countdown", "use delay=…, in seconds"), ("task_id", "use id=…")],
)
def test_an_option_among_the_arguments_of_a_task_is_refused_with_where_it_belongs(name: str, advice: str) -> None:
    text = f"Task 'shop.welcome': there is no parameter {name!r}. The options of a message are not among the arguments of its task: "
    wrong: dict[str, Any] = {name: 5}
    for method in (welcome.send, welcome.message, welcome.call):
        with pytest.raises(InvalidArguments, match=f"^{re.escape(f'{text}{advice}.')}$"):
            method(42, **wrong)


def test_an_argument_that_is_not_an_option_gets_no_hint() -> None:
    @app.task(name="shop.delayed")
    def delayed(delay: int) -> None: ...

    wrong: dict[str, Any] = {"delay": "soon"}
    with pytest.raises(InvalidArguments) as caught:
        delayed.message(**wrong)
    assert "options" not in str(caught.value)
    wrong = {"colour": "red"}
    with pytest.raises(InvalidArguments, match=r"^Task 'shop\.welcome': there is no parameter 'colour'\.$"):
        welcome.message(42, **wrong)


def test_an_option_without_a_hint_gets_the_name_that_is_similar_or_all_names() -> None:
    wrong: dict[str, Any] = {"retries": 3}
    with pytest.raises(TypeError, match=r"^task\(\) has no option 'retries': did you mean retry=…\?$"):
        app.task(**wrong)
    wrong = {"nonsense": 3}
    with pytest.raises(TypeError, match=r"^options\(\) has no option 'nonsense'; it has delay, at, .*, hard_limit\.$"):
        welcome.options(**wrong)


def test_what_a_hint_names_exists() -> None:
    options = {
        "task": {*inspect.signature(app.task).parameters} - {"foreign"},
        "options": {*inspect.signature(RemoteTask.options).parameters} - {"foreign"},
        "App": {*inspect.signature(App).parameters},
        "remote": {*inspect.signature(App.remote).parameters},
        "result": {*inspect.signature(Sent.result).parameters},
        "schedule": {*inspect.signature(App.schedule).parameters},
        "RetryLater": {*inspect.signature(RetryLater).parameters},
        "Settings": {*Settings.model_fields},
    }
    own = {
        "task": foreign_names.TASK_OPTIONS,
        "options": foreign_names.MESSAGE_OPTIONS,
        **{named: hints for named, _, hints in CALLS if named in options},
    }
    assert {*own} == {"task", "options", "App", "remote", "schedule", "result"}
    assert [name for name, hints in own.items() if options[name] & hints.keys()] == []
    tables = [hints for name, hints in vars(foreign_names).items() if name.endswith(("_OPTIONS", "_ATTRIBUTES"))]
    named = [call for hints in tables for hint in hints.values() for call in re.findall(r"(\w+)\((\w+=[^()]*)\)", hint)]
    assert {call for call, _ in named} == {*options, "wait_exponential_jitter"} - {"schedule"}
    options["wait_exponential_jitter"] = {"max", "jitter"}
    for call, arguments in named:
        assert {*re.findall(r"(\w+)=", arguments)} <= options[call], (call, arguments)


def test_tasks_and_runs_are_still_copied_and_pickled() -> None:
    assert copy.copy(welcome) is welcome
    assert pickle.loads(pickle.dumps(welcome)) is welcome
    assert copy.copy(a_run()).id == "id"
