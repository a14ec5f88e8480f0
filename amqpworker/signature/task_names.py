"""
The names of a task: its default, and lists of names.

Decides which functions have a name that a worker would find, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from amqpworker.errors import ConfigError


def default_name(function: Callable[..., Any]) -> str:
    """Return `module.function`; raises ConfigError if it has no name, or if a worker would not find the same one."""
    module = getattr(function, "__module__", None)
    qualified = getattr(function, "__qualname__", None)
    if qualified is None:
        raise ConfigError(f"A {type(function).__name__} cannot be a task: make a task of a plain function.")
    if module == "__main__":
        raise ConfigError(
            f"Task {qualified!r} is defined in __main__, which is another module in a worker: move it to a module "
            f"that both import, or give it a name=…."
        )
    if "<" in qualified:
        raise ConfigError(
            f"Task {qualified!r} is defined inside a function, so workers cannot name it: give it a name=…."
        )
    return f"{module}.{qualified}"


def names_of(option: str, given: Any) -> tuple[str, ...]:
    """Return the names that an option of a task lists; raises ConfigError if that is not a list."""
    if isinstance(given, str):
        raise ConfigError(f"task({option}={given!r:.60}): give a list of names, such as [{given!r:.60}].")
    if not isinstance(given, Iterable):
        raise ConfigError(f"task({option}={given!r:.60}): give a list of names.")
    return tuple(given)
