"""
Find the app that `MODULE:APP` names.

Decides what counts as an app and where to search for it; `app.imported` decides which import errors are the user's mistakes.
"""

from __future__ import annotations

import socket
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from amqpworker.app import App
from amqpworker.client.app_modules import imported
from amqpworker.errors import (
    ConfigError,
    ConnectionBlocked,
    NotConnected,
    QueueFull,
    QueueUnavailable,
    ResultStoreError,
    Unconfirmed,
)
from amqpworker.ipc.interpreter import folder_as_given
from amqpworker.log.redaction import redact_text

MAX_REASON = 300

T = TypeVar("T")

# What is imported only when it is needed (`sqlite3` by the first of them, `resource` by `os.wait4`, the pool of threads by
# `asyncio.to_thread`), and what only some of our programs import: all must find the same modules in the folder.
LOAD_FIRST = (
    "amqpworker.results.sqlite",
    "asyncio",
    "resource",
    "concurrent.futures.thread",
    "faulthandler",
    "mmap",
    "pickle",
)

# What code that runs at import meets if another service is away.
TEMPORARY_ERRORS = (
    *(ConnectionError, TimeoutError, socket.gaierror),
    *(NotConnected, ConnectionBlocked, Unconfirmed, QueueFull, QueueUnavailable, ResultStoreError),
)


def load_app(target: str) -> App:
    """Return the app, with the modules that hold its tasks imported; raises ConfigError if `target` does not name an `App`."""
    module_name, name = split_target(target)
    load_ours()
    _put_folder_first()
    found: Any = _found_by(lambda: imported(module_name, _no_module(module_name)))
    # A folder without an __init__.py is a module, too, and an empty one.
    if getattr(found, "__file__", None) is None and hasattr(found, "__path__"):
        raise ConfigError(f"{module_name!r} is a folder: name a module in it, such as {module_name}.tasks:{name}.")
    for part in name.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"Module {module_name!r} has no {name!r}: does its app have another name?")
        found = getattr(found, part)
    if not isinstance(found, App):
        raise ConfigError(
            f"{target!r} is of type {type(found).__name__}: write the name of an App in that module, such as app for app = App()."
        )
    _found_by(found.load)
    return found


def load_ours() -> None:
    """Load what our code would import later: then a module of the app's folder would take its place."""
    for name in LOAD_FIRST:
        import_module(name)


def _instead_of_file(file: str, name: str) -> str:
    """Return what to write instead of a file: its module, as producers import it, and the folder to start in."""
    path = Path(file if "/" in file else file.removesuffix(".py").replace(".", "/")).with_suffix(".py").absolute()
    root = _root_of(path)
    parts = () if root is None else path.relative_to(root).with_suffix("").parts
    if root is None or not all(part.isidentifier() for part in parts):
        return "go to its folder, and write MODULE:APP, such as shop.tasks:app"
    module = f"{'.'.join(parts)}:{name}"
    here = Path().absolute()
    if root == here or str(root) in sys.path:
        return f"write its module, {module}"
    shown = root.relative_to(here) if root.is_relative_to(here) else root
    return f"its module is found from the folder {shown}: go there (or install the project), and write {module}"


def _root_of(path: Path) -> Path | None:
    """Return the folder that the module in a file is imported from (above its packages, or `src`), None if that is unknown."""
    if (path.parent / "__init__.py").exists():
        return next((folder for folder in path.parents if not (folder / "__init__.py").exists()), None)
    here = Path().absolute()
    if ".." not in path.parts and path.is_relative_to(here):
        return here / "src" if path.relative_to(here).parts[0] == "src" else here
    return path.parent.resolve() if path.exists() and ".." not in path.parts else None


def _put_folder_first() -> None:
    """
    Search the current folder first for modules, as `python -m` does; called once all modules of ours are loaded.

    It is added by its path, so that a task may change the current folder.
    """
    # Its real path: what is imported later is of the same release, wherever a link leads by then.
    folder = str(folder_as_given().resolve())
    if sys.path[:1] != [folder]:
        sys.path.insert(0, folder)


def _no_module(name: str) -> str:
    return f"There is no module {name!r} in the folder {folder_as_given()}, and no installed package has it"


def _found_by(find: Callable[[], T]) -> T:
    """Return what `find` returns; if a file of the app's folder explains an error of ours, the error names that file."""
    try:
        return find()
    except ConfigError as error:
        if hint := _namesake(error.__cause__):
            raise ConfigError(f"{error}{hint}") from error.__cause__
        raise


def _namesake(error: BaseException | None) -> str:
    """Return the file of the current folder that an import missed, since another module has its name; "" if there is none."""
    named = getattr(error, "name", None) if isinstance(error, ImportError) else None
    if isinstance(error, AttributeError) and isinstance(error.obj, ModuleType):
        named = error.obj.__name__
    name = (named or "").partition(".")[0]
    loaded = getattr(sys.modules.get(name), "__file__", None)
    for file in (Path(f"{name}.py"), Path(name, "__init__.py")):
        if name and file.exists() and loaded != str(file.absolute()):
            return f" {file} is not found, since another module is called {name!r}: rename it."
    return ""


def import_error(target: str, error: BaseException) -> ConfigError:
    """Return the error for an app whose own code raised this at its import; the caller logs the traceback."""
    reason = redact_text(traceback.format_exception_only(error)[0].splitlines()[0])
    return ConfigError(f"{target!r} cannot be imported: {reason[:MAX_REASON].removesuffix('.')}.{_namesake(error)}")


def may_pass(error: BaseException) -> bool:
    """Return whether an import that raised this may succeed later with the same code and settings."""
    return isinstance(error, TEMPORARY_ERRORS)


def split_target(target: str) -> tuple[str, str]:
    """Return the module and the name in it; raises ConfigError if it has another form than MODULE:APP."""
    module, separator, name = target.partition(":")
    if not separator or not module or not name:
        raise ConfigError(f"{target!r} does not name an app: write MODULE:APP, such as shop.tasks:app.")
    if "/" in module or module.endswith(".py"):
        raise ConfigError(f"{target!r} names a file: {_instead_of_file(module, name)}.")
    if not all(module.split(".")):
        raise ConfigError(f"{module!r} cannot be a module: write MODULE:APP, such as shop.tasks:app.")
    return module, name
