"""
How amqpworker starts its programs, each in a new interpreter: with which path and options, and of the same version.

Decides that no module of the app's folder can shadow a module that amqpworker needs: the folder is not on the path while
amqpworker is imported. Folder and interpreter keep the paths that the user gave: a process that starts later follows symbolic
links, which may point to another release by then.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from amqpworker import __version__
from amqpworker.errors import ConfigError

# If amqpworker itself is in the app's folder, that folder becomes the last one on the path.
FROM_FOLDER = (
    "import sys, runpy; sys.path.append(sys.argv.pop(1)); "
    "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)

# The interpreter options that are passed on: all but those that choose the program, or change the start of the path (`-P`).
PASSED_ON = frozenset("bBdEIOqRsSuv")
WITH_VALUE = frozenset("WX")
PROGRAM = frozenset("cm")
PYCS = "--check-hash-based-pycs"

# A process may be of another version than the program that starts it: amqpworker may have been upgraded in between. Every
# version must be able to read the version of its parent: so that is the first argument, and is read before any other.
FLAG = "--parent="
VERSION_ARGUMENT = f"{FLAG}{__version__}"
VERSION_MISMATCH = 78
"""The exit code of an isolated process of another version; apps are unlikely to end with it at their import."""


def folder_as_given() -> Path:
    """Return the current folder as the path in `$PWD`, which may contain links, if that is the same folder; else its real path."""
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


def interpreter_options(command: Sequence[str] | None = None) -> list[str]:
    """Return the options in the command of an interpreter (default: this one) that the programs it starts get, too."""
    words = iter((sys.orig_argv if command is None else command)[1:])
    found: list[str] = []
    for word in words:
        if word == PYCS:
            found += [word, next(words, "default")]
        elif not word.startswith("-") or word in {"-", "--"}:
            break
        elif not word.startswith("--"):
            for at, letter in enumerate(word[1:], 2):
                if letter in PROGRAM:
                    return found
                if letter in WITH_VALUE:
                    found += [f"-{letter}", word[at:] or next(words, "")]
                    break
                if letter in PASSED_ON:
                    found.append(f"-{letter}")
    return found


def version_mismatch(arguments: Sequence[str]) -> str:
    """Return why a process cannot work for the program that started it with these arguments, "" if it can."""
    if not arguments or not arguments[0].startswith(FLAG) or arguments[0] == VERSION_ARGUMENT:
        return ""
    theirs = arguments[0].removeprefix(FLAG)
    return (
        f"amqpworker {__version__} is installed, but the pool was started with {theirs}: restart it; until then none of"
        f" its processes can be started."
    )


def without_version(arguments: Sequence[str]) -> Sequence[str]:
    """Return the arguments without the version."""
    return arguments[1:] if arguments[:1] and arguments[0].startswith(FLAG) else arguments
