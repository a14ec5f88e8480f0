"""
Whether a process is of the same version as the program that has started it: an upgrade may have come between.

Decides how a program names its version to what it starts. Every version must understand that, whatever else differs: so it
is the first argument, and read before any other. A worker process whose parent has another version reports that through the
pipe in its fourth argument, and ends with exit code 2; an isolated one ends with an exit code of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from amqpworker import __version__

__all__ = ["OTHER_VERSION", "OURS", "version_mismatch", "without_version"]

FLAG = "--parent="
OURS = f"{FLAG}{__version__}"
OTHER_VERSION = 78
"""The exit code of an isolated process: not one that apps are likely to end with at their import."""


def version_mismatch(arguments: Sequence[str]) -> str:
    """Return why a process cannot work for the program that has started it with these arguments; "" if it can."""
    if not arguments or not arguments[0].startswith(FLAG) or arguments[0] == OURS:
        return ""
    theirs = arguments[0].removeprefix(FLAG)
    return (
        f"amqpworker {__version__} is installed, but the pool was started with {theirs}: a restart is due, and until then"
        f" no process of it can be started."
    )


def without_version(arguments: Sequence[str]) -> Sequence[str]:
    """Return the arguments behind that of the version."""
    return arguments[1:] if arguments[:1] and arguments[0].startswith(FLAG) else arguments
