"""
The `amqpworker` program: its commands, and how it ends.

An error of ours is one line on standard error, a bug keeps its traceback. Exit codes: 0 success, 1 a negative result, 2 the
command could not do its work, 130 after Ctrl-C.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType
from typing import Annotated, Any

import typer

from amqpworker import __version__
from amqpworker.cli.broker_command import broker_app
from amqpworker.cli.dead_command import dead_app
from amqpworker.cli.pause_command import add_pause_commands
from amqpworker.cli.pending_command import pending_app
from amqpworker.cli.queues_command import queues_app
from amqpworker.cli.results_command import results_app
from amqpworker.cli.schedule_command import schedule_app
from amqpworker.cli.scheduler_command import scheduler_app
from amqpworker.cli.schema_command import schema_app
from amqpworker.cli.send_command import send_app
from amqpworker.cli.shared import examples, exit_code
from amqpworker.cli.status_command import status_app
from amqpworker.cli.tasks_command import tasks_app
from amqpworker.cli.topology_command import topology_app
from amqpworker.cli.unit_command import unit_app
from amqpworker.cli.values import as_cli_options
from amqpworker.cli.worker_command import worker_app
from amqpworker.errors import AmqpWorkerError, InvalidArguments
from amqpworker.log.redaction import redact_text
from amqpworker.log.terminal import escape_unencodable, print_error

INTERRUPTED = 128 + signal.SIGINT

program = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # in 80 columns, rich's table of options leaves a quarter of the width to the help texts
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Background work on RabbitMQ: run workers, send tasks, manage queues and dead letters.",
    epilog=examples(
        "amqpworker worker shop.tasks:app -p 2 -t 8",
        "amqpworker send shop.tasks.send_welcome user_id=42 --app shop.tasks:app",
        "amqpworker topology check shop.tasks:app",
        "amqpworker dead list --app shop.tasks:app",
        "amqpworker schedule list --app shop.tasks:app",
    )
    + "\n\nExit codes: 0 success, 1 a negative result (a check found a problem, a task failed), 2 the command could not do its work.",
)


def _show_version(requested: bool) -> None:
    if requested:
        sys.stdout.write(f"amqpworker {__version__}\n")
        raise typer.Exit


@program.callback()
def options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Background work on RabbitMQ: run workers, send tasks, manage queues and dead letters."""


for part in (worker_app, scheduler_app, send_app, status_app, unit_app, schema_app):
    program.add_typer(part)
program.add_typer(topology_app, name="topology")
program.add_typer(dead_app, name="dead")
add_pause_commands(queues_app, tasks_app)
program.add_typer(queues_app, name="queues")
program.add_typer(pending_app, name="pending")
program.add_typer(results_app, name="results")
program.add_typer(schedule_app, name="schedule")
program.add_typer(tasks_app, name="tasks")
program.add_typer(broker_app, name="broker")

# The module of click's classes differs between versions of typer; their order of inheritance does not.
UsageError: type[Any] = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code."""
    signal.signal(signal.SIGTERM, _on_terminate)
    escape_unencodable()
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        command = typer.main.get_command(program)
        code = command.main(args=given, prog_name="amqpworker", standalone_mode=False)
    except AmqpWorkerError as error:
        code = exit_code(error)
        text = as_cli_options(str(error)) if isinstance(error, InvalidArguments) else str(error)
        _fail(redact_text(text), code, given)
        return code
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except UsageError as error:
        return _usage_error(error, given)
    except OSError as error:
        if error.errno != errno.ENOSPC or error.filename is not None:
            raise
        _drop_output()
        _fail("The output cannot be written: no space left on device.", 2, given)
        return 2
    return code if isinstance(code, int) else 0


def _drop_output() -> None:
    """Drop buffered output that cannot be written: Python would try again at its exit, and report that it failed."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError), open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _fail(text: str, code: int, given: Sequence[str]) -> None:
    """Report why a command ends; as a JSON line if it is a service with --log-json."""
    log_options = [option for option in given if option in {"--log-json", "--no-log-json"}]
    if given[:1] in (["worker"], ["scheduler"]) and log_options[-1:] == ["--log-json"] and "--check" not in given:
        from amqpworker.log.format import configure
        from amqpworker.log.logger import get_logger

        configure(json=True, user_code=False)
        get_logger("amqpworker.cli").critical("start_failed", reason=text, code=code)
    else:
        print_error(text)


def _usage_error(error: Any, given: Sequence[str]) -> int:
    """Print in one line what is wrong with the command line, and which help explains it."""
    text = error.format_message().replace("Input should", "must", 1)
    if type(error).__name__ == "NoArgsIsHelpError":
        sys.stderr.write(f"{text}\n")
        return 2
    context = getattr(error, "ctx", None)
    hint = f" (see {context.command_path} --help)" if context is not None else ""
    _fail(f"{text}{hint}", 2, given)
    return 2


def _on_terminate(number: int, _frame: FrameType | None) -> None:
    """Shut down gracefully: a command that reads a queue requeues its messages."""
    raise SystemExit(128 + number)
