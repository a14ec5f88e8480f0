"""Which exceptions a task may name as those that it expects."""

from __future__ import annotations

from typing import Any

import pytest

from amqpworker import App, ConfigError, Reject, RetryLater, TaskCancelled, TimeLimitExceeded
from amqpworker.policies.expected_errors import expected_errors


def test_exceptions_are_given_in_a_tuple_or_a_list() -> None:
    assert expected_errors(()) == ()
    assert expected_errors([KeyError, TimeLimitExceeded]) == (KeyError, TimeLimitExceeded)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (KeyError, "task(throws=KeyError): give a tuple of exceptions, such as (KeyError,)."),
        ("KeyError", "task(throws='KeyError'): give a tuple of exceptions"),
        (None, "task(throws=None): give a tuple of exceptions"),
        (["KeyError"], "task(throws=…): 'KeyError' is not a class of exceptions"),
        ((KeyError("x"),), "task(throws=…): KeyError('x') is not a class of exceptions"),
        ((SystemExit,), "is not a class of exceptions, a subclass of Exception"),
        ((int,), "task(throws=…): <class 'int'> is not a class of exceptions"),
        ((Reject,), "task(throws=…): Reject decides by itself what becomes of the message: leave it out."),
        ((RetryLater,), "RetryLater decides by itself"),
        ((TaskCancelled,), "TaskCancelled decides by itself"),
    ],
)
def test_anything_else_is_refused_when_the_task_is_defined(given: Any, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        App("amqp://127.0.0.1:1/").task(name="example", throws=given)
    assert text in str(caught.value)
