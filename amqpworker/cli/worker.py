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
from amqpworker.supervisor.pools import STALL_TIMEOUT, START_TIMEOUT, PoolSpec, Recycling
from amqpworker.worker.options import MOST_PREFETCH, WorkerOptions

__all__ = ["usable_cores", "worker_app"]

SECONDS_IN_HOUR = 3600
MIB = 1024 * 1024
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
MaxTasks = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Replace a process by a fresh one after so many tasks.")
]
MaxHours = Annotated[
    float | None, typer.Option(min=0.001, metavar="HOURS", help="Replace a process by a fresh one after so long.")
]
MaxMemory = Annotated[
    int | None, typer.Option(min=1, metavar="MIB", help="Replace a process by a fresh one above so much memory.")
]
Health = Annotated[
    str | None,
    typer.Option(metavar="WHERE", help="Answer /livez, /readyz and /status at HOST:PORT, or on a unix socket."),
]
StallTimeout = Annotated[
    float,
    typer.Option(min=1, metavar="SECONDS", help="Kill and replace a process whose threads do not move for so long."),
]
StartTimeout = Annotated[
    float,
    typer.Option(
        min=1, metavar="SECONDS", help="Kill a process that has not loaded the app and entered its lifespan by then."
    ),
]
LogLevel = Annotated[str, typer.Option(metavar="LEVEL", help="debug, info, warning, error or critical.")]
LogJson = Annotated[
    bool | None,
    typer.Option(
        "--log-json/--no-log-json", help="JSON lines; default: text on a terminal and in a journal, else JSON."
    ),
]


AppPath = Annotated[str, typer.Argument(metavar="MODULE:APP", envvar=APP_VARIABLE, help="Where the app is.")]
Processes = Annotated[
    int | None,
    typer.Option(
        "-p", "--processes", min=1, max=1000, metavar="N", help="Worker processes; default: one for each usable core."
    ),
]
Threads = Annotated[
    int, typer.Option("-t", "--threads", min=1, max=10_000, metavar="N", help="Runner threads of each.")
]
Prefetch = Annotated[
    int | None,
    typer.Option(
        min=1, max=MOST_PREFETCH, metavar="N", help="Messages of each queue held by each; default: 4 for each thread."
    ),
]
AsyncTasks = Annotated[
    int, typer.Option(min=1, max=MOST_PREFETCH, metavar="N", help="Coroutines that run at once in each process.")
]


@worker_app.command(
    epilog="Examples:\n\n"
    "  amqpworker worker shop.tasks:app\n\n"
    "  amqpworker worker shop.tasks:app -p 4 -t 16 -q emails -q reports\n\n"
    "  amqpworker worker shop.tasks:app --prefetch 1 --drain-timeout 120\n\n"
    "  amqpworker worker shop.tasks:app --max-memory 500 --max-hours 24"
)
def worker(
    app: AppPath,
    processes: Processes = None,
    threads: Threads = 8,
    prefetch: Prefetch = None,
    queues: Queues = None,
    async_tasks: AsyncTasks = 100,
    drain_timeout: DrainTimeout = None,
    max_tasks: MaxTasks = None,
    max_hours: MaxHours = None,
    max_memory: MaxMemory = None,
    stall_timeout: StallTimeout = STALL_TIMEOUT,
    start_timeout: StartTimeout = START_TIMEOUT,
    health: Health = None,
    log_level: LogLevel = "info",
    log_json: LogJson = None,
) -> None:
    """
    Run the tasks of an app.

    SIGTERM or Ctrl-C: stop consuming, finish what runs, settle it, end.

    A second Ctrl-C ends at once.

    SIGHUP: replace one process after the other by one with the new code.

    SIGUSR1: status and stacks to the log. SIGTTIN, SIGTTOU: a process more, less.

    Exit codes: 0 stopped, 1 no process could be kept running, 2 nothing to run (no such app, login refused, …), 3
    something that ran was abandoned.
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
    from amqpworker.supervisor.supervisor import Supervisor

    configure(options.log_level, options.log_json)
    recycling = Recycling(
        max_tasks,
        None if max_hours is None else max_hours * SECONDS_IN_HOUR,
        None if max_memory is None else max_memory * MIB,
    )
    spec = PoolSpec("main", processes or usable_cores(), options, recycling, stall_timeout, start_timeout)
    raise typer.Exit(Supervisor([spec], health=health).run())


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
