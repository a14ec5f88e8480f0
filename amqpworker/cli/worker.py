"""
`amqpworker worker`: a pool of worker processes.

Decides the defaults that depend on the machine. It never imports the user's module: the processes of the pool do.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from amqpworker.cli.shared import APP_VARIABLE
from amqpworker.errors import ConfigError
from amqpworker.worker.options import MOST_PREFETCH, WorkerOptions

__all__ = ["usable_cores", "worker_app"]

CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")


worker_app = typer.Typer()

Queues = Annotated[
    list[str] | None,
    typer.Option("-q", "--queue", metavar="QUEUE", help="Consume this queue; repeatable; default: all of the app."),
]
DrainTimeout = Annotated[
    float | None,
    typer.Option(min=0, metavar="SECONDS", help="What running tasks get when the pool stops; default: the app's."),
]
LogLevel = Annotated[str, typer.Option(metavar="LEVEL", help="debug, info, warning, error or critical.")]
LogJson = Annotated[
    bool | None, typer.Option("--log-json/--no-log-json", help="JSON lines; default: text on a terminal, else JSON.")
]


@worker_app.command(
    epilog="Examples:\n\n"
    "  amqpworker worker shop.tasks:app\n\n"
    "  amqpworker worker shop.tasks:app -p 4 -t 16 -q emails -q reports\n\n"
    "  amqpworker worker shop.tasks:app --prefetch 1 --drain-timeout 120"
)
def worker(
    app: Annotated[str, typer.Argument(metavar="MODULE:APP", envvar=APP_VARIABLE, help="Where the app is.")],
    processes: Annotated[
        int | None,
        typer.Option(
            "-p",
            "--processes",
            min=1,
            max=1000,
            metavar="N",
            help="Worker processes; default: one for each usable core.",
        ),
    ] = None,
    threads: Annotated[
        int, typer.Option("-t", "--threads", min=1, max=10_000, metavar="N", help="Runner threads of each.")
    ] = 8,
    prefetch: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MOST_PREFETCH,
            metavar="N",
            help="Messages of each queue held by each; default: 4 for each thread.",
        ),
    ] = None,
    queues: Queues = None,
    async_tasks: Annotated[
        int, typer.Option(min=1, max=MOST_PREFETCH, metavar="N", help="Coroutines that run at once in each process.")
    ] = 100,
    drain_timeout: DrainTimeout = None,
    log_level: Annotated[str, typer.Option(metavar="LEVEL", help="debug, info, warning, error or critical.")] = "info",
    log_json: Annotated[
        bool | None,
        typer.Option("--log-json/--no-log-json", help="JSON lines; default: text on a terminal, else JSON."),
    ] = None,
) -> None:
    """
    Run the tasks of an app.

    SIGTERM or Ctrl-C: stop consuming, finish what runs, settle it, end. A second Ctrl-C ends at once.

    Exit codes: 0 stopped, 2 nothing to run (no such app, login refused, …), 3 something that ran was abandoned.
    """
    options = options_of(
        {
            "app": app,
            "threads": threads,
            "prefetch": prefetch,
            "async_tasks": async_tasks,
            "queues": tuple(queues or ()),
            "drain_timeout": drain_timeout,
            "log_level": log_level,
            "log_json": log_json,
        }
    )
    from amqpworker.logform import configure
    from amqpworker.worker.supervisor import Supervisor

    configure(options.log_level, options.log_json)
    raise typer.Exit(Supervisor(options, processes or usable_cores()).run())


def options_of(given: dict[str, object]) -> WorkerOptions:
    """
    Return the options, checked.

    Raises:
        ConfigError: one has a value that cannot be.
    """
    try:
        return WorkerOptions.model_validate(given)
    except ValidationError as error:
        told = "; ".join(f"--{str(one['loc'][0]).replace('_', '-')}: {one['msg']}" for one in error.errors())
        raise ConfigError(f"{told}.") from None


def usable_cores(limit: Path = CPU_LIMIT) -> int:
    """Return how many cores this process may use: by its affinity, and by the quota of its control group."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = limit.read_text().split()
        return max(1, min(cores, -(-int(quota) // int(period))))
    except (OSError, ValueError):
        return cores  # no control group, or no quota ("max")
