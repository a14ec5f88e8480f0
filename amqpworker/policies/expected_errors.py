"""Which exceptions `throws=` accepts: those that a task expects, so that its message is neither retried nor a reason to warn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from amqpworker.errors import ConfigError, TaskCancelled, TaskSignal

ThrowsSpec: TypeAlias = Sequence[type[Exception]]

# What decides by itself what becomes of a message.
_DECIDES = (TaskSignal, TaskCancelled)


def expected_errors(given: Any) -> tuple[type[Exception], ...]:
    """Return the exceptions of `throws=`; raises ConfigError if one is not an exception, or has a meaning of its own."""
    if isinstance(given, type):
        raise ConfigError(f"task(throws={given.__name__}): give a tuple of exceptions, such as ({given.__name__},).")
    if not isinstance(given, Sequence) or isinstance(given, str | bytes):
        raise ConfigError(f"task(throws={given!r:.60}): give a tuple of exceptions, such as (LookupError,).")
    for one in given:
        _check(one)
    return tuple(given)


def _check(one: Any) -> None:
    if not isinstance(one, type) or not issubclass(one, Exception):
        raise ConfigError(f"task(throws=…): {one!r:.60} is not a class of exceptions, a subclass of Exception.")
    if issubclass(one, _DECIDES):
        raise ConfigError(
            f"task(throws=…): {one.__name__} decides by itself what becomes of the message: leave it out."
        )
