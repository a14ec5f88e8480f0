"""
Find the app that `MODULE:APP` names.

Decides what is an app and where it is looked for; which imports are a mistake of the user is said by `app.imported`.
"""

from __future__ import annotations

import socket
import sys
import traceback
from typing import Any

from amqpworker.app import App, imported
from amqpworker.errors import (
    Blocked,
    ConfigError,
    NotConnected,
    QueueFull,
    QueueUnavailable,
    ResultStoreError,
    Unconfirmed,
)
from amqpworker.redaction import redact_text

__all__ = ["failing", "locate", "may_pass", "parted"]

LONGEST_REASON = 300

# What code that runs at import meets if another service is away.
PASSING = (
    *(ConnectionError, TimeoutError, socket.gaierror),
    *(NotConnected, Blocked, Unconfirmed, QueueFull, QueueUnavailable, ResultStoreError),
)


def locate(target: str) -> App:
    """
    Import the module and return its app, with the modules that hold its tasks imported too.

    Raises:
        ConfigError: there is no such module, no such name in it, or what is there is no `App`.
    """
    module_name, name = parted(target)
    # As `python -m` has it: the folder where the command was typed.
    if "" not in sys.path:
        sys.path.insert(0, "")
    found: Any = imported(module_name, f"There is no module {module_name!r}")
    # A folder without an __init__.py is a module, too, and an empty one.
    if getattr(found, "__file__", None) is None and hasattr(found, "__path__"):
        raise ConfigError(f"{module_name!r} is a folder: name a module in it, such as {module_name}.tasks:{name}.")
    for part in name.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"Module {module_name!r} has no {name!r}: its app is named otherwise?")
        found = getattr(found, part)
    if not isinstance(found, App):
        raise ConfigError(
            f"{target!r} is of type {type(found).__name__}: write the name that an App is given there, as in app = App()."
        )
    found.load()
    return found


def failing(target: str, error: BaseException) -> ConfigError:
    """Return that an app cannot be imported, since its own code has raised this; its traceback is told elsewhere."""
    reason = redact_text(traceback.format_exception_only(error)[0].splitlines()[0])
    return ConfigError(f"{target!r} cannot be imported: {reason[:LONGEST_REASON].removesuffix('.')}.")


def may_pass(error: BaseException) -> bool:
    """Tell whether an import that raised this may succeed later, with the same code and settings."""
    return isinstance(error, PASSING)


def parted(target: str) -> tuple[str, str]:
    """
    Return the module and the name in it.

    Raises:
        ConfigError: it has another form than MODULE:APP.
    """
    module, separator, name = target.partition(":")
    if not separator or not module or not name:
        raise ConfigError(f"{target!r} does not name an app: write MODULE:APP, such as shop.tasks:app.")
    if "/" in module or module.endswith(".py"):
        dotted = module.removeprefix("./").removesuffix(".py").replace("/", ".")
        if all(part.isidentifier() for part in dotted.split(".")):
            raise ConfigError(f"{target!r} names a file: write its module, {dotted}:{name}.")
        raise ConfigError(f"{target!r} names a file: go to its folder, and write MODULE:APP, such as shop.tasks:app.")
    if not all(module.split(".")):
        raise ConfigError(f"{module!r} cannot be a module: write MODULE:APP, such as shop.tasks:app.")
    return module, name
