"""
Find the app that `MODULE:APP` names.

Decides what is a mistake of the user (one sentence) and what is an error in their module (its traceback).
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from amqpworker.app import App
from amqpworker.errors import ConfigError

__all__ = ["locate"]


def locate(target: str) -> App:
    """
    Import the module and return its app, with the modules that hold its tasks imported too.

    Raises:
        ConfigError: there is no such module, no such name in it, or what is there is no `App`.
    """
    module_name, separator, name = target.partition(":")
    if not separator or not module_name or not name:
        raise ConfigError(f"{target!r} does not name an app: write MODULE:APP, such as shop.tasks:app.")
    # As `python -m` has it: the folder where the command was typed.
    if "" not in sys.path:
        sys.path.insert(0, "")
    found: Any = imported(module_name)
    for part in name.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"Module {module_name!r} has no {name!r}: its app is named otherwise?")
        found = getattr(found, part)
    if not isinstance(found, App):
        raise ConfigError(f"{target!r} is a {type(found).__name__}, not an App.")
    found.load()
    return found


def imported(name: str) -> Any:
    """Import a module; that it is missing is a mistake of the user, any other error is its own."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise ConfigError(
                f"There is no module {name!r}: is the name right, and is it found from the current folder?"
            ) from error
        raise ConfigError(f"Module {name!r} cannot be imported: {error}.") from error
    except SyntaxError as error:
        raise ConfigError(f"Module {name!r} cannot be imported: {error}.") from error
