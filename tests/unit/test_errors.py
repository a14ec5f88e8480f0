"""What users catch: all of it exported, documented as it is, and the same in another process."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

import amqpworker
from amqpworker import errors
from amqpworker.client.sent import NO_ORIGIN, Sent
from amqpworker.errors import (
    AmqpWorkerError,
    BatchFailed,
    Reject,
    RetryLater,
    SendError,
    TaskFailed,
    TaskSignal,
    Unroutable,
)
from amqpworker.model.message import Message
from amqpworker.policies.retry import ResultRefused
from amqpworker.results.store import ResultNotStorable, RowsNotReadable
from amqpworker.signature.signature import MalformedBody, UnknownParameter
from amqpworker.signature.versions import UpgradeFailed
from tests.docs import ROOT

INTERNAL = {ResultRefused, MalformedBody, ResultNotStorable, RowsNotReadable, UnknownParameter, UpgradeFailed}
"""What users need not know; the docstring of `errors` names them."""


def family(kind: type[BaseException]) -> Iterator[type[BaseException]]:
    """Yield a class of the package, and all below it."""
    if kind.__module__.startswith("amqpworker."):
        yield kind
    for one in kind.__subclasses__():
        yield from family(one)


def tree(text: str) -> list[str]:
    """Return the names in a tree of lines, in their order."""
    return re.findall(r"^[ │├└─]*([A-Z]\w+)(?: {2}|$)", text, re.MULTILINE)


def test_every_error_of_the_tree_is_in_the_package_itself() -> None:
    for kind in {*family(AmqpWorkerError), *family(TaskSignal)} - INTERNAL - {TaskSignal}:
        assert getattr(amqpworker, kind.__name__, None) is kind
        assert kind.__name__ in amqpworker.__all__


def test_what_is_not_listed_with_the_others_is_documented_as_internal() -> None:
    outside = {kind for kind in family(AmqpWorkerError) if kind.__module__ != errors.__name__}
    assert outside == INTERNAL
    assert [kind.__name__ for kind in outside if kind.__name__ not in (errors.__doc__ or "")] == []


def test_the_tree_of_the_docs_and_that_of_the_docstring_are_that_of_the_classes() -> None:
    wanted = {kind.__name__ for kind in family(AmqpWorkerError) if kind not in INTERNAL}
    page = (ROOT / "docs/errors.md").read_text()
    assert set(tree(page.split("```")[1])) == wanted
    assert set(tree((errors.__doc__ or "").split("Errors of pika")[0].split("\n\n", 1)[1])) >= wanted


MESSAGE = Message("shop.task", "work", b"{}", "an-id", {"tenant": "acme"})
GIVEN: dict[type[BaseException], list[BaseException]] = {
    TaskFailed: [TaskFailed("failed", "ValueError", "no", "Traceback …"), TaskFailed("expired")],
    BatchFailed: [BatchFailed("1 of 1", [Unroutable("no queue", MESSAGE)], [Sent("id", "shop.task", NO_ORIGIN)])],
    Reject: [Reject(), Reject("too cheap")],
    RetryLater: [RetryLater(), RetryLater(5), RetryLater(timedelta(minutes=1), count=False)],
}
TOLD = {
    kind: [kind("what was wrong")]
    for kind in dict.fromkeys((*family(AmqpWorkerError), *family(TaskSignal)))
    if kind not in GIVEN
}
SENDING: dict[type[BaseException], list[BaseException]] = {
    kind: [kind("what was wrong", MESSAGE)] for kind in family(SendError)
}
EACH = [error for kinds in (GIVEN, TOLD, SENDING) for errors in kinds.values() for error in errors]


def same(one: BaseException, other: BaseException) -> None:
    """Assert that two errors have the same content."""
    assert type(one) is type(other)
    assert str(one) == str(other)
    assert vars(one) == vars(other)


@pytest.mark.parametrize(
    "again", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy], ids=["pickled", "copied"]
)
@pytest.mark.parametrize("error", EACH, ids=repr)
def test_an_error_that_is_carried_elsewhere_stays_the_same(error: BaseException, again: Any) -> None:
    error.add_note("seen on the way")
    same(again(error), error)
    if isinstance(error, BatchFailed):
        same(again(error).exceptions[0], error.exceptions[0])


def test_a_signal_of_ones_own_is_carried_as_what_it_is() -> None:
    error = pickle.loads(pickle.dumps(TooFast()))
    assert (type(error), error.delay, error.count) == (TooFast, 60, False)


class TooFast(RetryLater):
    """As users may derive one."""

    def __init__(self) -> None:
        super().__init__(60, count=False)
