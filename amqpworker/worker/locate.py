"""
Find the app that `MODULE:APP` names.

Decides what is an app and where it is looked for; which imports are a mistake of the user is said by `app.imported`.
"""

from __future__ import annotations

import sys
from typing import Any

from amqpworker.app import App, imported
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
    if "/" in module_name or module_name.endswith(".py"):
        dotted = module_name.removeprefix("./").removesuffix(".py").strip("/").replace("/", ".")
        raise ConfigError(f"{target!r} names a file: write its module, {dotted}:{name}.")
    # As `python -m` has it: the folder where the command was typed.
    if "" not in sys.path:
        sys.path.insert(0, "")
    found: Any = imported(module_name, f"There is no module {module_name!r}")
    for part in name.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"Module {module_name!r} has no {name!r}: its app is named otherwise?")
        found = getattr(found, part)
    if not isinstance(found, App):
        raise ConfigError(f"{target!r} is a {type(found).__name__}, not an App.")
    found.load()
    return found
