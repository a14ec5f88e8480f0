"""What users catch: all of it exported, and told of by the docs as it is."""

from __future__ import annotations

import re
from collections.abc import Iterator

import amqpworker
from amqpworker import errors
from amqpworker.errors import AmqpWorkerError, TaskSignal
from amqpworker.retry import ResultRefused
from amqpworker.task import MalformedBody
from tests.docs import ROOT

INTERNAL = {ResultRefused, MalformedBody}
"""What never leaves a worker; the docstring of `errors` names them."""


def family(kind: type[BaseException]) -> Iterator[type[BaseException]]:
    """Yield a class of the package, and all below it."""
    if kind.__module__.startswith("amqpworker."):
        yield kind
    for one in kind.__subclasses__():
        yield from family(one)


def tree(text: str) -> list[str]:
    """Return the names that stand in a tree of lines, as they come."""
    return re.findall(r"^[ │├└─]*([A-Z]\w+)(?: {2}|$)", text, re.MULTILINE)


def test_every_error_of_the_tree_is_in_the_package_itself() -> None:
    for kind in {*family(AmqpWorkerError), *family(TaskSignal)} - INTERNAL - {TaskSignal}:
        assert getattr(amqpworker, kind.__name__, None) is kind
        assert kind.__name__ in amqpworker.__all__


def test_what_does_not_stand_with_the_others_is_said_to_be_internal() -> None:
    outside = {kind for kind in family(AmqpWorkerError) if kind.__module__ != errors.__name__}
    assert outside == INTERNAL
    assert [kind.__name__ for kind in outside if kind.__name__ not in (errors.__doc__ or "")] == []


def test_the_tree_of_the_docs_and_that_of_the_docstring_are_that_of_the_classes() -> None:
    wanted = {kind.__name__ for kind in family(AmqpWorkerError) if kind not in INTERNAL}
    page = (ROOT / "docs/errors.md").read_text()
    assert set(tree(page.split("```")[1])) == wanted
    assert set(tree((errors.__doc__ or "").split("Errors of pika")[0].split("\n\n", 1)[1])) >= wanted
