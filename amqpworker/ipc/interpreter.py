"""
How a program of ours is started in a fresh interpreter.

Decides that no module of the app's folder can take the place of one that our own code needs: the folder is not on the path
while our code is imported. `app_loader` puts it there, when everything of ours is loaded. Folder and interpreter are known by the
paths that were given: what starts later follows symbolic links, which may lead to another release by then.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

from amqpworker.errors import ConfigError
from amqpworker.ipc.interpreter_options import interpreter_options

__all__ = ["command_of", "folder_as_given", "interpreter_as_given"]

# For a package that is found in the app's folder only: the folder goes behind everything else.
FROM_FOLDER = (
    "import sys, runpy; sys.path.append(sys.argv.pop(1)); "
    "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)


def folder_as_given() -> Path:
    """
    Return the current folder as the path in `$PWD`, which may contain links, if that is the same folder; else its real path.

    Raises:
        ConfigError: the folder does not exist any more.
    """
    given = os.environ.get("PWD", "")
    with suppress(OSError):
        if os.path.isabs(given) and os.path.samefile(given, "."):
            return Path(given)
    try:
        return Path.cwd()
    except OSError as error:
        raise ConfigError(f"The current folder cannot be read: {error.strerror}. Was it deleted?") from error


def interpreter_as_given() -> str:
    """Return our interpreter, by the name of the folder in which our program was started if that is its folder, too."""
    with suppress(OSError):
        beside = folder_as_given() / Path(sys.argv[0]).parent / Path(sys.executable).name
        if sys.executable and beside.exists() and beside.parent.samefile(Path(sys.executable).parent):
            return str(beside)
    return sys.executable


def command_of(module: str) -> list[str]:
    """Return the beginning of the command that runs a module of ours; its arguments follow."""
    here = Path(__file__).parents[2]
    if here.is_dir() and here.samefile("."):
        return [sys.executable, *interpreter_options(), "-P", "-c", FROM_FOLDER, str(here), module]
    return [sys.executable, *interpreter_options(), "-P", "-m", module]
