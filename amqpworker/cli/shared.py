"""
What the commands have in common: options, the user's app and its broker, standard input.

Decides which errors are a negative result (exit code 1), and which mean that the command could not do its work (2).
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

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
from amqpworker.log.terminal import printable

if TYPE_CHECKING:
    from amqpworker.app import App
    from amqpworker.broker.admin import Admin

APP_VARIABLE = "AMQPWORKER_APP"


def app_option(text: str) -> Any:
    """Return the option --app, which a variable can give too; `text` is what its help has."""
    return typer.Option("--app", metavar="MODULE:APP", envvar=APP_VARIABLE, help=text)


AppOption = Annotated[str | None, app_option("The app that has the task, with its types and its queue.")]
UrlOption = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="The broker, in place of an app; AMQPWORKER_APP is then ignored.",
        show_default="AMQPWORKER_URL, then localhost",
    ),
]
NamespaceOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The prefix of exchanges, in place of an app; AMQPWORKER_APP is then ignored.",
        show_default="amqpworker",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

# What the commands load late; it must be loaded before the app's folder is on the path, whose modules might hide it.
LOADED_LATE = (
    "amqpworker.broker.admin",
    "amqpworker.client.dead",
    "amqpworker.broker.management",
    "rich.progress",
    "rich.table",
)

NEGATIVE_RESULTS = (TaskFailed, CallTimeout, Unroutable, QueueFull, QueueUnavailable, ConnectionBlocked, Unconfirmed)


REPORT_AFTER = 1.0


def examples(*commands: str) -> str:
    """Return the last part of a help text; click does not wrap a paragraph that begins with a backspace."""
    lines = "".join(f"\n  {command}" for command in commands)
    return f"\b\nExample{'s' if len(commands) > 1 else ''}:{lines}"


def exit_code(error: AmqpWorkerError) -> int:
    """Return 1 for a negative result, 2 for a command that could not do its work."""
    return 1 if isinstance(error, NEGATIVE_RESULTS) else 2


def quiet() -> None:
    """Log errors only: a command reports what is wrong in its last line."""
    from amqpworker.log.format import configure

    configure("error", json=False)


def load(target: str) -> App:
    """
    Import the user's app; raises ConfigError if `target` does not name one.

    An error in the user's own code is printed with its traceback.
    """
    from amqpworker.worker.app_loader import import_error, load_app

    for name in LOADED_LATE:
        import_module(name)
    try:
        return load_app(target)
    except AmqpWorkerError:
        raise
    except (Exception, SystemExit) as error:
        sys.stderr.write(redact_text(traceback.format_exc()))
        raise import_error(target, error) from error


@dataclass(frozen=True, slots=True)
class Place:
    """Where a command acts: at the broker of an app, or at the one of a URL, in a namespace."""

    app: str | None
    url: str | None
    namespace: str | None
    has_given_way: bool = False
    """Whether the environment names an app, but the command line another place."""

    @classmethod
    def of(cls, context: typer.Context, app: str | None, url: str | None, namespace: str | None) -> Place:
        """Return what the options of a command name: --url and --namespace count more than an app of the environment."""
        gives_way = (url is not None or namespace is not None) and not is_typed(context, "app") and app is not None
        return cls(None if gives_way else app, url, namespace, gives_way)

    def open(self) -> App:
        """Return the user's app, or one without tasks; raises ConfigError if the command line has an app and --url."""
        if self.app is not None:
            for option, value in (("--url", self.url), ("--namespace", self.namespace)):
                if value is not None:
                    raise ConfigError(f"Use an app or {option}, not both: the app has its own.")
            return load(self.app)
        from amqpworker.app import App
        from amqpworker.routing.topology import DEFAULT_NAMESPACE

        return App(self.url, namespace=DEFAULT_NAMESPACE if self.namespace is None else self.namespace)


def is_typed(context: typer.Context, option: str) -> bool:
    """Return whether an option is from the command line, not from the environment or its default."""
    return getattr(context.get_parameter_source(option), "name", "") == "COMMANDLINE"


@contextmanager
def closing_app(app: App) -> Iterator[None]:
    """Report on a terminal if the app waits for its broker, and close the app at the end."""
    report = threading.Timer(REPORT_AFTER, _report_waiting, [app])
    report.daemon = True
    if sys.stderr.isatty():
        report.start()
    try:
        yield
    except BaseException:
        # A message that is not confirmed after an error or a Ctrl-C is given up: `close` would wait for it.
        app.producer.close(0.0)
        raise
    finally:
        report.cancel()
        app.close()


def _report_waiting(app: App) -> None:
    from amqpworker.broker.address import addresses, places

    publisher = app.producer.publisher
    if not publisher.connected:
        reason = f": {publisher.session.problem.text}" if publisher.session.problem is not None else ""
        sys.stderr.write(printable(f"waiting for the broker at {places(addresses(app.url))}{reason} …") + "\n")


def admin_of(app: App) -> Admin:
    """Return a client for the app's broker."""
    from amqpworker.broker.admin import Admin

    return Admin(app.url, app.settings)


def standard_input() -> bytes:
    """Read all of standard input."""
    return sys.stdin.buffer.read()
