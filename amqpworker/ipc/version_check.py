"""
Whether a process has the same version as the program that has started it: amqpworker may have been upgraded in between.

Every version must be able to read the version of its parent, whatever else differs: so it is the first argument, and is read
before any other. A worker process whose parent has another version reports that through the pipe in its fourth argument, and
ends with exit code 2; an isolated process ends with an exit code of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from amqpworker import __version__

FLAG = "--parent="
VERSION_ARGUMENT = f"{FLAG}{__version__}"
VERSION_MISMATCH = 78
"""The exit code of an isolated process of another version; apps are unlikely to end with it at their import."""


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
