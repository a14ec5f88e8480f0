"""
`amqpworker worker`: a pool of worker processes, or several that a file describes, and perhaps a scheduler.

It never imports the user's module: the processes of the pool do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel, ValidationError

from amqpworker.cli.cores import usable_cores
from amqpworker.cli.option_flags import flagged, flags_of, takes_options_of
from amqpworker.cli.pool_file import SCHEDULER, ConfigFile, mistake, read_config, supervisor_config
from amqpworker.cli.shared import APP_VARIABLE, examples
from amqpworker.errors import ConfigError
from amqpworker.ipc.interpreter import folder_as_given
from amqpworker.routing.topology import DEFAULT_SCHEDULER
from amqpworker.supervisor.launch import SupervisorConfig, launch
from amqpworker.worker.options import PoolOptions, QueueOptions

MODELS = (PoolOptions, ConfigFile)
ALLOWED_WITH_CONFIG = ("config", "check", "as_json")

worker_app = typer.Typer()

AppPath = Annotated[
    str | None,
    typer.Argument(metavar="MODULE:APP", envvar=APP_VARIABLE, help=PoolOptions.model_fields["app"].description),
]
ConfigPath = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", help="Run the pools of this TOML file; only --check and --json can be added."
    ),
]
WithScheduler = Annotated[
    bool, typer.Option("--scheduler", help="Run a scheduler as well, in a process of its own: `amqpworker scheduler`.")
]
SchedulerName = Annotated[
    str | None, typer.Option(metavar="NAME", help="With --scheduler: its name.", show_default=DEFAULT_SCHEDULER)
]
SchedulerFile = Annotated[
    str | None, typer.Option(metavar="FILE", help="With --scheduler: a TOML file with more schedules.")
]
Check = Annotated[bool, typer.Option("--check", help="Show what would run, or what is wrong, and run nothing.")]
CheckAsJson = Annotated[bool, typer.Option("--json", help="With --check: print JSON.")]


@worker_app.command(
    epilog=examples(
        "amqpworker worker shop.tasks:app",
        "amqpworker worker shop.tasks:app -p 4 -t 16 -q emails -q reports",
        "amqpworker worker shop.tasks:app -q emails:8 -q reports:2,prefetch=4",
        "amqpworker worker shop.tasks:app --prefetch 1 --drain-timeout 120",
        "amqpworker worker shop.tasks:app --max-memory 500 --max-hours 24",
        "amqpworker worker shop.tasks:app --scheduler --scheduler-file schedules.toml",
        "amqpworker worker --config pools.toml --check",
    )
)
@takes_options_of(*MODELS)
def worker(
    context: typer.Context,
    app: AppPath = None,
    *,
    config: ConfigPath = None,
    scheduler: WithScheduler = False,
    scheduler_name: SchedulerName = None,
    scheduler_file: SchedulerFile = None,
    check: Check = False,
    as_json: CheckAsJson = False,
    **given: Any,
) -> None:
    """
    Run the tasks of an app.

    SIGTERM, Ctrl-C: graceful shutdown: consume nothing more, let running tasks finish, exit. A second Ctrl-C exits at once.

    SIGHUP: replace the processes one by one, to load new code; the --config file is not read again.

    SIGUSR1: log status and stacks. SIGTTIN, SIGTTOU: add or remove a worker process.

    Exit codes: 0 stopped, 1 no process ever consumed, 2 wrong configuration, 3 a running task was abandoned.
    """
    if config is None:
        own = {"scheduler": scheduler, "scheduler_name": scheduler_name, "scheduler_file": scheduler_file}
        found = config_from_flags(app, {**given, **own})
    else:
        _refuse_with_config(context)
        found = read_config(config, app, usable_cores())
    launch_or_check(found, check, as_json)


def launch_or_check(found: SupervisorConfig, check: bool, as_json: bool) -> None:
    """Become the supervisor, or only show what it would run; raises ConfigError if something is wrong."""
    if as_json and not check:
        raise ConfigError("--json can only be used with --check.")
    if check:
        # Loaded only if it is needed.
        from amqpworker.cli.worker_check import check_pools
        from amqpworker.log.format import configure

        configure(found.log_level, found.log_json)
        check_pools(found, as_json)
    else:
        launch(replace(found, cores=usable_cores(), folder=str(folder_as_given())))


def config_from_flags(app: str | None, given: Mapping[str, Any]) -> SupervisorConfig:
    """Return the one pool of the command line; raises ConfigError if an option is missing or wrong."""
    if not app:
        raise ConfigError(
            "Missing argument 'MODULE:APP': name your app, such as shop.tasks:app, or a file with --config."
        )
    options = {name: value for name, value in given.items() if value is not None}
    if queues := options.pop("queues", ()):
        options["queues"] = tuple(map(_queue_options, queues))
    scheduler = _scheduler_table(app, options)
    whole = {name: options.pop(name) for name in ConfigFile.model_fields if name in options}
    try:
        content = {**whole, SCHEDULER: scheduler, "pools": [{"name": "main", "app": app, **options}]}
        return supervisor_config(content, usable_cores())
    except ValidationError as error:
        raise flag_error(error, MODELS) from None


def _scheduler_table(app: str, options: dict[str, Any]) -> dict[str, Any] | None:
    """Remove the options of a scheduler from those of the command; return them as a pool file has them, None if it is not wanted."""
    wanted = options.pop(SCHEDULER, False)
    own: dict[str, Any] = {
        name: options.pop(f"scheduler_{name}") for name in ("name", "file") if f"scheduler_{name}" in options
    }
    if own and not wanted:
        raise ConfigError(f"--scheduler-{min(own)} can only be used with --scheduler.")
    own |= {name: options[name] for name in ("start_timeout", "stall_timeout") if name in options}
    return {"app": app, **own} if wanted else None


def _queue_options(text: str) -> QueueOptions:
    try:
        return QueueOptions.parse(text)
    except ValidationError as error:
        found = "; ".join(f"{wrong['loc'][0]} {mistake(dict(wrong))}" for wrong in error.errors())
        raise ConfigError(f"--queue {text}: {found}.") from None


def flag_error(error: ValidationError, models: Sequence[type[BaseModel]]) -> ConfigError:
    """Return what is wrong with the options of a command, as an error that names their flags; each flag is named once."""
    found = {_flag_at(wrong["loc"], models): mistake(dict(wrong)) for wrong in error.errors()}
    return ConfigError(f"{'; '.join(f'{flag}: {what}' for flag, what in found.items())}.")


def _flag_at(location: tuple[int | str, ...], models: Sequence[type[BaseModel]]) -> str:
    """Return the flag of the field that a mistake is in; threads are too many by several fields together."""
    if location[:1] == (SCHEDULER,) and PoolOptions in models and location[-1] in {"name", "file"}:
        return f"--scheduler-{location[-1]}"
    name = next((str(step) for step in location if step not in {"pools", SCHEDULER, 0}), "threads")
    flags = {field: flags_of(field, flag)[-1] for model in models for field, _, flag in flagged(model)}
    return flags.get(name, "MODULE:APP")


def _refuse_with_config(context: typer.Context) -> None:
    given = [
        "MODULE:APP" if option.param_type_name == "argument" else max(option.opts, key=len)
        for option in context.command.params
        if option.name not in ALLOWED_WITH_CONFIG
        and getattr(context.get_parameter_source(str(option.name)), "name", "") == "COMMANDLINE"
    ]
    if given:
        raise ConfigError(f"{', '.join(sorted(given))} cannot be used with --config: write it in the file.")
