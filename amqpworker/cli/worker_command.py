"""
`amqpworker worker`: a pool of worker processes, or several that a file describes.

Decides the defaults that depend on the machine. It never imports the user's module: the processes of the pool do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError

from amqpworker.cli.cores import usable_cores
from amqpworker.cli.pool_file import pool_of, read_config, recycling_of
from amqpworker.cli.queue_option import parsed
from amqpworker.cli.shared import APP_VARIABLE, AsJson
from amqpworker.errors import ConfigError
from amqpworker.ipc.interpreter import folder_as_given
from amqpworker.log.format import check_level
from amqpworker.supervisor.launch import SupervisorConfig, launch
from amqpworker.supervisor.pools import MOST_HOURS, STALL_TIMEOUT, START_TIMEOUT
from amqpworker.worker.options import MOST_PREFETCH, MOST_THREADS, QueueOptions, WorkerOptions

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

__all__ = ["worker_app"]

BESIDE_CONFIG = {"config", "check", "as_json"}

worker_app = typer.Typer()


class LoggedTasks(StrEnum):
    """What `--log-tasks` takes."""

    all = "all"
    failed = "failed"


def finite(value: float | None) -> float | None:
    """Refuse what click takes for a number within any limits."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no number of seconds or hours.")
    return value


AppPath = Annotated[str | None, typer.Argument(metavar="MODULE:APP", envvar=APP_VARIABLE, help="Where the app is.")]
Processes = Annotated[
    int | None,
    typer.Option(
        "-p", "--processes", min=1, max=1000, metavar="N", help="Worker processes; default: one for each usable core."
    ),
]
Threads = Annotated[
    int,
    typer.Option(
        "-t",
        "--threads",
        min=1,
        max=MOST_THREADS,
        metavar="N",
        help="Runner threads of each, for the queues without a number of their own.",
    ),
]
Prefetch = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=MOST_PREFETCH,
        metavar="N",
        help="Messages of each queue held by each; default: 4 for each task at once.",
    ),
]
Queues = Annotated[
    list[str] | None,
    typer.Option(
        "-q",
        "--queue",
        metavar="QUEUE",
        help="Consume this queue; repeatable; default: all of the app. QUEUE:N or QUEUE:N,prefetch=N: by N threads that "
        "serve nothing else. Settings begin at the last colon; a name that itself ends like them gets a colon behind it.",
    ),
]
AsyncTasks = Annotated[
    int, typer.Option(min=1, max=MOST_PREFETCH, metavar="N", help="Coroutines that run at once in each process.")
]
Isolated = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=MOST_THREADS,
        metavar="N",
        help="Suspected messages that run in isolated processes at once, per worker process; default: as many as it has "
        "threads, 4 at most.",
    ),
]
DrainTimeout = Annotated[
    float | None,
    typer.Option(min=0, metavar="SECONDS", help="What running tasks get when the pool stops; default: the app's."),
]
MaxTasks = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Replace a process by a fresh one after so many tasks.")
]
MaxHours = Annotated[
    float | None,
    typer.Option(
        min=0.001,
        max=MOST_HOURS,
        callback=finite,
        metavar="HOURS",
        help="Replace a process by a fresh one after so long.",
    ),
]
MaxMemory = Annotated[
    int | None, typer.Option(min=1, metavar="MIB", help="Replace a process by a fresh one above so much memory.")
]
StallTimeout = Annotated[
    float,
    typer.Option(
        min=1,
        callback=finite,
        metavar="SECONDS",
        help="Kill and replace a process whose threads do not move for so long.",
    ),
]
StartTimeout = Annotated[
    float,
    typer.Option(
        min=1,
        metavar="SECONDS",
        help="Kill a process that has not loaded the app and entered its lifespan this long after its start.",
    ),
]
Health = Annotated[
    str | None,
    typer.Option(metavar="WHERE", help="Answer /livez, /readyz and /status at HOST:PORT, or on a unix socket."),
]
ConfigPath = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Run the pools of this TOML file; beside it only --check and --json can be given.",
    ),
]
Check = Annotated[
    bool, typer.Option("--check", help="Show what would run, or what is wrong, and run nothing. --json: as JSON.")
]
LogLevel = Annotated[str, typer.Option(metavar="LEVEL", help="debug, info, warning, error or critical.")]
LogTasks = Annotated[
    LoggedTasks | None,
    typer.Option(
        help="Which tasks leave a line in the log when they end; default: the app's setting (failed if not set)."
    ),
]
LogJson = Annotated[
    bool | None,
    typer.Option(
        "--log-json/--no-log-json", help="JSON lines; default: text on a terminal and in a journal, else JSON."
    ),
]


@worker_app.command(
    epilog="Examples:\n\n"
    "  amqpworker worker shop.tasks:app\n\n"
    "  amqpworker worker shop.tasks:app -p 4 -t 16 -q emails -q reports\n\n"
    "  amqpworker worker shop.tasks:app -q emails:8 -q reports:2,prefetch=4\n\n"
    "  amqpworker worker shop.tasks:app --prefetch 1 --drain-timeout 120\n\n"
    "  amqpworker worker shop.tasks:app --max-memory 500 --max-hours 24\n\n"
    "  amqpworker worker --config pools.toml --check"
)
def worker(
    context: typer.Context,
    app: AppPath = None,
    processes: Processes = None,
    threads: Threads = 8,
    prefetch: Prefetch = None,
    queues: Queues = None,
    async_tasks: AsyncTasks = 100,
    isolated: Isolated = None,
    drain_timeout: DrainTimeout = None,
    max_tasks: MaxTasks = None,
    max_hours: MaxHours = None,
    max_memory: MaxMemory = None,
    stall_timeout: StallTimeout = STALL_TIMEOUT,
    start_timeout: StartTimeout = START_TIMEOUT,
    health: Health = None,
    config: ConfigPath = None,
    check: Check = False,
    as_json: AsJson = False,
    log_level: LogLevel = "info",
    log_tasks: LogTasks = None,
    log_json: LogJson = None,
) -> None:
    """
    Run the tasks of an app.

    SIGTERM or Ctrl-C: stop consuming, finish what runs, settle it, end. A second Ctrl-C ends at once.

    SIGHUP: replace one process after the other by one with the new code; the file is not read again.

    SIGUSR1: status and stacks to the log. SIGTTIN, SIGTTOU: a process more, less.

    Exit codes: 0 stopped, 1 no process could be kept running, 2 nothing to run, 3 something that ran was abandoned.
    """
    if as_json and not check:
        raise ConfigError("--json belongs to --check.")
    if config is None:
        given = {
            "app": app,
            "threads": threads,
            "prefetch": prefetch,
            "async_tasks": async_tasks,
            "isolated": isolated,
            "queues": queues or (),
            "drain_timeout": drain_timeout,
            "stall_timeout": stall_timeout,
            "start_timeout": start_timeout,
            "log_level": log_level,
            "log_tasks": log_tasks and log_tasks.value,
            "log_json": log_json,
        }
        recycling = recycling_of(max_tasks, max_hours, max_memory)
        spec = pool_of("main", processes or usable_cores(), options_of(given), recycling, stall_timeout, start_timeout)
        setup = SupervisorConfig((spec,), health, log_level, log_json)
    else:
        refuse_beside_config(context)
        setup = read_config(config, app, usable_cores())
    if check:
        raise typer.Exit(checked(setup, as_json))
    launch(replace(setup, cores=usable_cores(), folder=str(folder_as_given())))


def refuse_beside_config(context: typer.Context) -> None:
    """
    See to it that nothing is said on the command line that stands in the file.

    Raises:
        ConfigError: something is.
    """
    given = [
        "MODULE:APP" if name == "app" else f"--{name.replace('_', '-').removesuffix('s' if name == 'queues' else '')}"
        for name in context.params
        if name not in BESIDE_CONFIG and getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    ]
    if given:
        raise ConfigError(
            f"Give --config or {', '.join(sorted(given))}, not both: with --config it stands in the file."
        )


def checked(setup: SupervisorConfig, as_json: bool) -> int:
    """Show what would run, and return the exit code."""
    from amqpworker.cli.worker_check import check
    from amqpworker.log.format import configure

    configure(setup.log_level, setup.log_json)
    check(setup, as_json)
    return 0


def options_of(given: Mapping[str, Any]) -> WorkerOptions:
    """
    Return the options, checked.

    Raises:
        ConfigError: one is missing, or has a value that cannot be.
    """
    if not given["app"]:
        raise ConfigError(
            "Missing argument 'MODULE:APP': name your app, such as shop.tasks:app, or a file by --config."
        )
    check_level(given["log_level"])
    queues = tuple(queue_of(text) for text in given["queues"])
    try:
        return WorkerOptions.model_validate({**given, "queues": queues})
    except ValidationError as error:
        raise ConfigError(f"{'; '.join(map(problem, error.errors()))}.") from None


def queue_of(text: str) -> QueueOptions:
    """
    Return the options of a queue.

    Raises:
        ConfigError: the text cannot be read, or a number in it cannot be.
    """
    try:
        return parsed(text)
    except ValidationError as error:
        mistakes = "; ".join(f"{one['loc'][0]}: {one['msg']}" for one in error.errors())
        raise ConfigError(f"--queue {text}: {mistakes}.") from None


def problem(one: ErrorDetails) -> str:
    """Return what pydantic complains about in words of the command line."""
    option = {"queues": "queue"}.get(name := str(next(iter(one["loc"]), "threads")), name).replace("_", "-")
    option = "MODULE:APP" if name == "app" else f"--{option}"
    return f"{option}: {one['msg'].removeprefix('Value error, ')}"
