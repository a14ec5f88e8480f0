"""`amqpworker tasks`: what an operator does to a task."""

from __future__ import annotations

import typer

tasks_app = typer.Typer(no_args_is_help=True, help="Act on tasks of an app.")


@tasks_app.callback()
def tasks() -> None:
    """Act on tasks of an app."""
