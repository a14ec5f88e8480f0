"""`amqpworker queues`: what an operator does to a whole queue."""

from __future__ import annotations

import typer

queues_app = typer.Typer(no_args_is_help=True, help="Act on whole queues of an app.")


@queues_app.callback()
def queues() -> None:
    """Act on whole queues of an app."""
