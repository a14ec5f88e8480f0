"""
The version of a task's parameters, and arguments of older versions made into those of the present one.

Decides which versions and upgrades are valid. A version is a header of a message; one that is newer than the worker's is not
decided here but in `worker.executor`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeAlias

from pydantic_core import from_json, to_json

from amqpworker.errors import ConfigError, InvalidArguments
from amqpworker.text import name_of

Upgrade: TypeAlias = Callable[[int, dict[str, Any]], dict[str, Any]]
"""Called with a message's version and its arguments, as JSON has them; returns the arguments of the present version."""

MAX_VERSION = 1_000_000_000


class UpgradeFailed(InvalidArguments):
    """An upgrade raised an exception, or did not return arguments; the arguments may be valid, its code is not."""


def check_version(version: Any, upgrade: Any = None) -> int:
    """Return a valid version; raises ConfigError if it is not one, or if nothing could be upgraded to it."""
    if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= MAX_VERSION:
        raise ConfigError(f"task(version={version!r:.60}): it must be a whole number from 1 to {MAX_VERSION}.")
    if upgrade is None:
        return int(version)
    if not callable(upgrade) or inspect.iscoroutinefunction(upgrade):
        raise ConfigError(f"task(upgrade={upgrade!r:.60}): it must be a function, not a coroutine function.")
    if version == 1:
        raise ConfigError("task(upgrade=…): there is no version before 1; give the task version=2 too.")
    return int(version)


def upgraded(task: str, upgrade: Upgrade, version: int, body: bytes) -> bytes:
    """
    Return the body of a message with this `version` as one of the present version.

    Raises UpgradeFailed if the upgrade fails. A body that is not a JSON object is returned as it is: reading it fails.
    """
    try:
        arguments = from_json(body)
    except ValueError:
        return body
    if not isinstance(arguments, dict):
        return body
    try:
        following = upgrade(version, arguments)
    except Exception as error:
        raise UpgradeFailed(f"Task {task!r}: its upgrade from version {version} failed.") from error
    if not isinstance(following, dict):
        raise UpgradeFailed(
            f"Task {task!r}: its upgrade {name_of(upgrade)} returned a {type(following).__name__}: return the arguments as a dict."
        )
    try:
        return to_json(following)
    except Exception as error:
        raise UpgradeFailed(
            f"Task {task!r}: what its upgrade {name_of(upgrade)} returned cannot be written as JSON."
        ) from error
