"""Errors that name what is wrong: the key, the value, the parameter; and tasks that are pickled as functions are."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass
from typing import Any

import pytest
import typing_extensions
from pydantic import BaseModel, ConfigDict

from amqpworker import App, ConfigError, InvalidArguments, RetryLater
from amqpworker.client.batch import failed_batch
from amqpworker.errors import InvalidResult, NotConnected, QueueFull, SendError, Unconfirmed

app = App()


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")
    a: int


@dataclass
class Plain:
    a: int


class Typed(typing_extensions.TypedDict):
    a: int


@app.task(name="texts.of", queue="work")
def of(
    m: Strict | None = None,
    d: Plain | None = None,
    t: Typed | None = None,
    many: list[Strict] | None = None,
    named: dict[str, Strict] | None = None,
    x: Any = None,
) -> Any:
    """Do nothing."""


@app.remote(name="elsewhere.charge", queue="billing")
def charge(order: str) -> str:
    raise NotImplementedError


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"m": {"a": 1, "colour": 2}}, "parameter 'm': There is no field 'colour'."),
        ({"d": {"a": 1, "colour": 2}}, "parameter 'd': There is no field 'colour'."),
        ({"t": {"a": 1, "colour": 2}}, "parameter 't': There is no field 'colour'."),
        ({"many": [{"a": 1}, {"a": 1, "colour": 2}]}, "parameter 'many' at [1]: There is no field 'colour'."),
        ({"named": {"secret": {"a": 1, "colour": 2}}}, "parameter 'named': There is no field 'colour'."),
        ({"m": {"a": 1, "c" * 500: 2}}, f"parameter 'm': There is no field '{'c' * 59}…."),
        ({"x": {1, 2}}, "parameter 'x': set would arrive as list; use a more specific type hint."),
        ({"x": {5: 1}}, "parameter 'x': a key of type int would arrive as str; use a more specific type hint."),
        ({"x": 10**5000}, "parameter 'x': An integer has more than 4300 digits."),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_its_key(values: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidArguments) as caught:
        of.message(**values)
    assert str(caught.value) == f"Task 'texts.of': {told}"


def test_a_return_value_that_does_not_fit_is_called_so() -> None:
    with pytest.raises(InvalidResult) as caught:
        of.signature.encode_result({1, 2})
    assert "parameter" not in str(caught.value)
    assert "use a more specific type hint" in str(caught.value)


@pytest.mark.parametrize("name", [5, None, "", b"a"])
def test_a_header_whose_name_is_not_text_is_reported_as_such(name: Any) -> None:
    with pytest.raises(InvalidArguments) as caught:
        of.options(headers={name: 1})
    assert str(caught.value) == f"options(headers=…): the name of a header must be a non-empty string, got {name!r}."


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("my.name", r"task\('my\.name'\): give a task's name as name='my\.name'\."),
        (5, r"task\(5\): give options by name, such as task\(queue='emails'\)\."),
        (of, r"task\(…\): 'texts\.of' is a task already\."),
    ],
)
def test_a_decorator_that_is_given_no_function_shows_what_to_write(given: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        app.task(given)
    with pytest.raises(ConfigError, match=told.replace("task(", "remote(").replace(r"task\(", r"remote\(")):
        app.remote(name="x")(given)


# ---- pickling -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [of, charge])
def test_a_task_is_pickled_by_its_name_and_copied_as_itself(task: Any) -> None:
    assert pickle.loads(pickle.dumps(task)) is task
    assert copy.copy(task) is task
    assert copy.deepcopy({"task": task})["task"] is task


def test_a_task_with_options_is_pickled_too() -> None:
    sending = pickle.loads(pickle.dumps(of.options(delay=5, headers={"tenant": "acme"})))
    assert (sending.message().delay, sending.message().headers) == (5, {"tenant": "acme"})


def test_a_task_that_cannot_be_found_by_its_name_is_refused_as_such_a_function_is() -> None:
    @app.task(name="texts.inner", queue="work")
    def inner() -> None: ...

    with pytest.raises((AttributeError, pickle.PicklingError), match="inner"):
        pickle.dumps(inner)


# ---- batches --------------------------------------------------------------------------------------------------------


def failed(*kinds: type[SendError]) -> list[SendError]:
    return [kind("why", of.message()) for kind in kinds]


@pytest.mark.parametrize(
    ("kinds", "told"),
    [
        ([NotConnected, QueueFull], "2 of 5 messages were not sent"),
        ([Unconfirmed, Unconfirmed], "2 of 5 messages were not confirmed, and may have arrived"),
        (
            [Unconfirmed, QueueFull, QueueFull],
            "2 of 5 messages were not sent, and 1 was not confirmed and may have arrived",
        ),
        (
            [Unconfirmed, Unconfirmed, QueueFull],
            "1 of 5 messages was not sent, and 2 were not confirmed and may have arrived",
        ),
        ([Unconfirmed], "1 of 5 messages was not confirmed, and may have arrived"),
    ],
)
def test_a_batch_that_failed_does_not_claim_that_a_message_did_not_arrive(
    kinds: list[type[SendError]], told: str
) -> None:
    error = failed_batch(failed(*kinds), list(range(5 - len(kinds))))
    assert error.message == told
    assert len(error.sent) == 5 - len(kinds)


@pytest.mark.parametrize("delay", ["soon", None, -1, float("nan"), 10**400])
def test_a_retry_later_without_a_duration_shows_none(delay: Any) -> None:
    with pytest.raises(ValueError, match=r"^RetryLater\(delay=.*\): the delay must be zero or more seconds\.$"):
        RetryLater(delay)
