"""
`amqpworker scheduler`: a supervisor with a single scheduler process.

It never imports the user's module: the scheduler process does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from amqpworker.cli.cores import usable_cores
from amqpworker.cli.option_flags import takes_options_of
from amqpworker.cli.pool_file import SCHEDULER, ConfigFile, supervisor_config
from amqpworker.cli.shared import APP_VARIABLE, examples
from amqpworker.cli.worker_command import Check, CheckAsJson, flag_error, launch_or_check
from amqpworker.errors import ConfigError
from amqpworker.scheduler.scheduler_options import SchedulerTable
from amqpworker.supervisor.launch import SupervisorConfig

MODELS = (SchedulerTable, ConfigFile)

scheduler_app = typer.Typer()

AppPath = Annotated[
    str | None,
    typer.Argument(metavar="MODULE:APP", envvar=APP_VARIABLE, help=SchedulerTable.model_fields["app"].description),
]


@scheduler_app.command(
    epilog=examples(
        "amqpworker scheduler shop.tasks:app",
        "amqpworker scheduler shop.tasks:app --name reports --file schedules.toml",
        "amqpworker scheduler shop.tasks:app --file schedules.toml --check",
        "amqpworker scheduler shop.tasks:app --health 127.0.0.1:8080",
    )
)
@takes_options_of(*MODELS)
def scheduler(app: AppPath = None, *, check: Check = False, as_json: CheckAsJson = False, **given: Any) -> None:
    """
    Send the tasks of an app's schedules, each at its times.

    Run the same command on as many hosts as you like: of all schedulers with the same name one leads, and another one takes over
    if it ends or is cut off. `amqpworker worker --scheduler` runs one beside a pool.

    The times of a schedule are in UTC unless it names a time zone.

    SIGTERM, Ctrl-C: another scheduler takes over, and this one exits.

    SIGHUP: replace the process by a new one, which loads new code and reads --file again; no tick is missed.

    SIGUSR1: log status and stacks.

    Exit codes: 0 stopped, 1 no process ever subscribed, 2 wrong configuration, 3 the process did not stop in time.
    """
    launch_or_check(config_from_flags(app, given), check, as_json)


def config_from_flags(app: str | None, given: Mapping[str, Any]) -> SupervisorConfig:
    """Return the scheduler of the command line; raises ConfigError if an option is missing or wrong."""
    if not app:
        raise ConfigError("Missing argument 'MODULE:APP': name your app, such as shop.tasks:app.")
    options = {name: value for name, value in given.items() if value is not None}
    whole = {name: options.pop(name) for name in ConfigFile.model_fields if name in options}
    try:
        return supervisor_config({**whole, SCHEDULER: {"app": app, **options}}, usable_cores())
    except ValidationError as error:
        raise flag_error(error, MODELS) from None
