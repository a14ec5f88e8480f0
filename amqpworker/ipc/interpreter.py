"""
How amqpworker starts its programs, each in a new interpreter.

Decides that no module of the app's folder can shadow a module that amqpworker needs: the folder is not on the path while
amqpworker is imported. `app_loader` adds it afterwards. Folder and interpreter keep the paths that the user gave: a process
that starts later follows symbolic links, which may point to another release by then.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

from amqpworker.errors import ConfigError
from amqpworker.ipc.interpreter_options import interpreter_options

# If amqpworker itself is in the app's folder, that folder becomes the last one on the path.
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
    """Return the path of this interpreter, relative to the given folder if the running program is in the interpreter's folder."""
    with suppress(OSError):
        beside = folder_as_given() / Path(sys.argv[0]).parent / Path(sys.executable).name
        if sys.executable and beside.exists() and beside.parent.samefile(Path(sys.executable).parent):
            return str(beside)
    return sys.executable


def command_of(module: str) -> list[str]:
    """Return the command that runs a module of amqpworker, without the module's arguments."""
    here = Path(__file__).parents[2]
    if here.is_dir() and here.samefile("."):
        return [sys.executable, *interpreter_options(), "-P", "-c", FROM_FOLDER, str(here), module]
    return [sys.executable, *interpreter_options(), "-P", "-m", module]
