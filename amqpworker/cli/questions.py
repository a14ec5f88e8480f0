"""
Questions of commands that cannot be undone.

Decides that only a person at a terminal answers them: a program gives `--yes`.
"""

from __future__ import annotations

import sys

import typer

from amqpworker.errors import ConfigError


def agreed(question: str, yes: bool) -> bool:
    """
    Return whether the user agrees, asked on standard error; true at once with `yes` (`--yes`).

    Raises ConfigError if standard input is not a terminal.
    """
    if yes:
        return True
    if not sys.stdin.isatty():
        raise ConfigError(f"{question} Standard input is not a terminal: confirm with --yes.")
    return typer.confirm(question, err=True)
