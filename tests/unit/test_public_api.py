"""The public API is what its snapshot lists: a change of it is seen, and is meant."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import amqpworker
from amqpworker import task, testing
from amqpworker.client.dead import DeadLetters
from amqpworker.client.sent import Sent

SNAPSHOT = Path(__file__).parent / "snapshots" / "public_api.txt"
HELD = (task.Task, task.RemoteTask, task.SendView, task.CallView, Sent, DeadLetters)
"""What users hold without importing it."""


def described(name: str, value: Any) -> Iterator[str]:
    """Yield a line for a function, or for a class and each of its own public members."""
    if not inspect.isclass(value):
        yield f"{name}{inspect.signature(value)}" if callable(value) else f"{name}: {type(value).__name__}"
        return
    bases = ", ".join(base.__name__ for base in value.__bases__ if base is not object)
    yield f"class {name}({bases})"
    for field, about in getattr(value, "model_fields", {}).items():
        yield f"    {field}: {about.default!r}"
    for member in sorted(dir(value)):
        private = member.startswith("_") and member not in {"__init__", "__call__", "__enter__", "__exit__"}
        if private or member.startswith("model_"):  # pydantic's own
            continue
        owner = next(base for base in value.__mro__ if member in vars(base))
        if not owner.__module__.startswith("amqpworker"):
            continue
        found = inspect.getattr_static(value, member)
        found = found.__func__ if isinstance(found, classmethod | staticmethod) else found
        if isinstance(found, property) or not callable(found):
            yield f"    {member}"
        else:
            yield f"    {member}{inspect.signature(found)}"


def public_api() -> str:
    lines = []
    for name in amqpworker.__all__:
        lines.extend(described(name, getattr(amqpworker, name)))
    for value in HELD:
        lines.extend(described(value.__name__, value))
    for name in testing.__all__:
        lines.extend(described(f"testing.{name}", getattr(testing, name)))
    return "\n".join(lines) + "\n"


def test_the_public_api_is_that_of_the_snapshot() -> None:
    found = public_api()
    if found != SNAPSHOT.read_text():
        SNAPSHOT.with_suffix(".new").write_text(found)
    assert found == SNAPSHOT.read_text(), f"If it is meant, put {SNAPSHOT.with_suffix('.new')} in its place."
