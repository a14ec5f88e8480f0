"""
What the commands have in common: options, the user's app and its broker, standard input.

Decides which errors mean that the answer is no (1) and which that nothing could be asked (2).
"""

from __future__ import annotations

import sys
import traceback
from importlib import import_module
from typing import TYPE_CHECKING, Annotated

import typer

from amqpworker.errors import (
    AmqpWorkerError,
    CallTimeout,
    ConfigError,
    ConnectionBlocked,
    QueueFull,
    QueueUnavailable,
    TaskFailed,
    Unconfirmed,
    Unroutable,
)
from amqpworker.log.redaction import redact_text

if TYPE_CHECKING:
    from amqpworker.app import App
    from amqpworker.broker.admin import Admin

__all__ = [
    "APP_VARIABLE",
    "AppOption",
    "AsJson",
    "NamespaceOption",
    "UrlOption",
    "admin_of",
    "app_of",
    "exit_code",
    "load",
    "quiet",
    "standard_input",
]

APP_VARIABLE = "AMQPWORKER_APP"

AppOption = Annotated[
    str | None,
    typer.Option(
        "--app", metavar="MODULE:APP", envvar=APP_VARIABLE, help="The app that knows the task: its types and its queue."
    ),
]
UrlOption = Annotated[
    str | None,
    typer.Option(metavar="URL", help="The broker, where no app tells; else AMQPWORKER_URL is taken, then localhost."),
]
NamespaceOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="The prefix of exchanges, where no app tells; default: amqpworker.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

# What the commands import only when they need it; loaded before the app's folder is on the path, whose modules might hide it.
LATER = ("amqpworker.broker.admin", "amqpworker.broker.management", "rich.progress", "rich.table")

ANSWERED = (TaskFailed, CallTimeout, Unroutable, QueueFull, QueueUnavailable, ConnectionBlocked, Unconfirmed)


def exit_code(error: AmqpWorkerError) -> int:
    """Return 1 where something was asked and the answer is no, 2 where it could not be asked."""
    return 1 if isinstance(error, ANSWERED) else 2


def quiet() -> None:
    """Keep log lines away: a tool tells what is wrong by its last line. Defects are still told."""
    from amqpworker.log.format import configure

    configure("error", json=False)


def load(target: str) -> App:
    """
    Import the user's app; an error in the user's own code is shown with its traceback.

    Raises:
        ConfigError: `target` names no app.
    """
    from amqpworker.worker.app_loader import import_error, load_app

    for name in LATER:
        import_module(name)
    try:
        return load_app(target)
    except AmqpWorkerError:
        raise
    except (Exception, SystemExit) as error:
        sys.stderr.write(redact_text(traceback.format_exc()))
        raise import_error(target, error) from error


def app_of(target: str | None, url: str | None, namespace: str | None = None) -> App:
    """
    Return the user's app, or one without tasks for the broker at `url`.

    Raises:
        ConfigError: `target` names no app, or both were given.
    """
    if target is not None:
        for option, value in (("--url", url), ("--namespace", namespace)):
            if value is not None:
                raise ConfigError(f"Give an app (--app or {APP_VARIABLE}) or {option}, not both: the app has its own.")
        return load(target)
    from amqpworker.app import App
    from amqpworker.routing.topology import DEFAULT_NAMESPACE

    return App(url, namespace=DEFAULT_NAMESPACE if namespace is None else namespace)


def admin_of(app: App) -> Admin:
    """Return a client that asks the app's broker."""
    from amqpworker.broker.admin import Admin

    return Admin(app.url, app.settings)


def standard_input() -> bytes:
    """Read all of standard input."""
    return sys.stdin.buffer.read()
