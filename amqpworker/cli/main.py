"""
The `amqpworker` program: its commands, and how it ends.

Decides that an error of ours is one line on standard error, that a defect keeps its traceback, and the exit code: 0 done,
1 the answer is no, 2 it could not be asked, 130 after Ctrl-C. Each command stands in a file of its own.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Annotated, Any

import typer

from amqpworker import __version__
from amqpworker.cli.broker_command import broker_app
from amqpworker.cli.dead_command import dead_app
from amqpworker.cli.output import escape_unencodable, print_error
from amqpworker.cli.send_command import send_app
from amqpworker.cli.shared import exit_code
from amqpworker.cli.status_command import status_app
from amqpworker.cli.topology_command import topology_app
from amqpworker.cli.unit_command import unit_app
from amqpworker.cli.worker_command import worker_app
from amqpworker.errors import AmqpWorkerError
from amqpworker.log.redaction import redact_text

__all__ = ["main", "program"]

INTERRUPTED = 128 + signal.SIGINT

program = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Background work on RabbitMQ: run workers, send tasks, look after queues and dead letters.",
    epilog="Examples:\n\n"
    "  amqpworker worker shop.tasks:app -p 2 -t 8\n\n"
    "  amqpworker send shop.tasks.send_welcome user_id=42 --app shop.tasks:app\n\n"
    "  amqpworker topology check shop.tasks:app\n\n"
    "  amqpworker dead list --app shop.tasks:app\n\n"
    "Exit codes: 0 done, 1 the answer is no, 2 it could not be asked.",
)


def show_version(wanted: bool) -> None:
    """Print the version and end."""
    if wanted:
        sys.stdout.write(f"amqpworker {__version__}\n")
        raise typer.Exit


@program.callback()
def options(
    _version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Background work on RabbitMQ: run workers, send tasks, look after queues and dead letters."""


# typer has no way to take commands over without a name of their own for all versions from 0.12 on.
program.registered_commands += [
    *worker_app.registered_commands,
    *send_app.registered_commands,
    *status_app.registered_commands,
    *unit_app.registered_commands,
]
program.add_typer(topology_app, name="topology")
program.add_typer(dead_app, name="dead")
program.add_typer(broker_app, name="broker")

# typer has click's classes under another name from one version to the next; their order of inheritance stays.
UsageError: type[Any] = next(one for one in typer.BadParameter.__mro__ if one.__name__ == "ClickException")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code."""
    signal.signal(signal.SIGTERM, on_terminate)
    escape_unencodable()
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        command = typer.main.get_command(program)
        code = command.main(args=given, prog_name="amqpworker", standalone_mode=False)
    except AmqpWorkerError as error:
        code = exit_code(error)
        fail(redact_text(str(error)), code, given)
        return code
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except UsageError as error:
        return misused(error, given)
    return code if isinstance(code, int) else 0


def fail(text: str, code: int, given: Sequence[str]) -> None:
    """Report why a command ends, in the form of the other lines if a worker was to log JSON."""
    forms = [one for one in given if one in {"--log-json", "--no-log-json"}]
    if given[:1] == ["worker"] and forms[-1:] == ["--log-json"] and "--check" not in given:
        from amqpworker.log.format import configure
        from amqpworker.log.logger import get_logger

        configure(json=True, user_code=False)
        get_logger("amqpworker.cli").critical("start_failed", reason=text, code=code)
    else:
        print_error(text)


def misused(error: Any, given: Sequence[str]) -> int:
    """Tell in one line what is wrong with the command line, and where it is explained."""
    text = error.format_message()
    if type(error).__name__ == "NoArgsIsHelpError":
        # Where rich formats the help, it is on the screen by now.
        sys.stderr.write(text)
        return 2
    context = getattr(error, "ctx", None)
    hint = f" ({context.command_path} --help tells more)" if context is not None else ""
    fail(f"{text}{hint}", 2, given)
    return 2


def on_terminate(number: int, _frame: FrameType | None) -> None:
    """End in good order: what a tool holds of a queue is given back."""
    raise SystemExit(128 + number)
