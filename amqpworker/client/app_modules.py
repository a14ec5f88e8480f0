"""
Import a module of the user's: one that `App(modules=…)` names, or the one that has the app.

Decides which failures are mistakes of the configuration: a module that does not exist, or is not Python.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from amqpworker.errors import ConfigError


def imported(name: str, missing: str) -> ModuleType:
    """Import a module of the user's; raises ConfigError if it does not exist (`missing` is the text) or is not Python."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise ConfigError(f"{missing}: check the name, and the folder that it is imported from.") from error
        raise ConfigError(f"Module {name!r} cannot be imported: {error}.") from error
    except SyntaxError as error:
        raise ConfigError(f"Module {name!r} cannot be imported: {error}.") from error
