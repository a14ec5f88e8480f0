"""
How every row that consumes is measured, the same for all sides: fill, let the node rest, start, wait, reckon.

The queue is filled before the worker starts, so that no publisher runs while it is measured. The clock runs from the
first task that begins to the last that ends (see `tally`): imports and connecting are not counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from bench.context import Bench
from bench.load import QUEUE
from bench.places import GO_CONSUMER, OWN_PROGRAM, OWN_PYTHON, PEER_PYTHON, PEERS, SideFailed, run, running
from bench.pool import QueueView
from bench.row import Figures, Measure
from bench.tally import Tally

PATIENCE = 240.0

Until = Callable[[Callable[[], None]], int]
"""
Waits until what follows the tasks is done, and returns when that was, in nanoseconds since the epoch.

It is passed what checks that the worker is alive.
"""


@dataclass(frozen=True)
class Shape:
    """How big a worker is; without a prefetch each takes its own default."""

    processes: int = 1
    threads: int = 8
    prefetch: int | None = 256


@dataclass(frozen=True)
class Side:
    """One library or program that consumes: how it is filled, and how its worker is started."""

    name: str
    note: str
    python: str
    module: str
    commands: Callable[[Shape], list[list[str]]]
    environment: dict[str, str] = field(default_factory=dict)
    results: str = ""
    """The URL of where its worker stores results; what fills the queue has no store."""


def ours(shape: Shape, app: str = "bench.sides.ours:app") -> list[list[str]]:
    """Return the command of amqpworker's worker."""
    own = [] if shape.prefetch is None else ["--prefetch", str(shape.prefetch)]
    size = ["-p", str(shape.processes), "-t", str(shape.threads), *own]
    return [[OWN_PROGRAM, "worker", app, *size, "-q", QUEUE, "--log-level", "critical"]]


def _celery(shape: Shape, pool: str = "threads") -> list[list[str]]:
    own = [] if shape.prefetch is None else ["--prefetch-multiplier", str(shape.prefetch // shape.threads)]
    size = ["-P", pool, "-c", str(shape.threads), *own]
    celery = [str(PEERS / "celery"), "-A", "bench.sides.celery_tasks:app", "worker", "-l", "critical", *size]
    return [[*celery, "-n", f"bench{number}@localhost"] for number in range(shape.processes)]


def _dramatiq(shape: Shape) -> list[list[str]]:
    size = ["-p", str(shape.processes), "-t", str(shape.threads)]
    return [[str(PEERS / "dramatiq"), "bench.sides.dramatiq_tasks", *size, "--skip-logging"]]


def _taskiq(shape: Shape) -> list[list[str]]:
    size = ["--workers", str(shape.processes), "--max-threadpool-threads", str(shape.threads)]
    own = [] if shape.prefetch is None else ["--max-async-tasks", str(shape.prefetch)]
    module = "bench.sides.taskiq_tasks:broker"
    return [[str(PEERS / "taskiq"), "worker", module, *size, *own, "--log-level", "CRITICAL"]]


OURS = Side("amqpworker", "quorum queue, acked when done", OWN_PYTHON, "bench.sides.ours", ours)
CELERY = Side("Celery", "threads pool, classic queue, acked early", PEER_PYTHON, "bench.sides.celery_tasks", _celery)
CELERY_PREFORK = replace(CELERY, note="a process for each task that runs", commands=partial(_celery, pool="prefork"))
DRAMATIQ = Side("Dramatiq", "classic queue, acked when done", PEER_PYTHON, "bench.sides.dramatiq_tasks", _dramatiq)
TASKIQ = Side("taskiq", "aio-pika, coroutines, quorum queue", PEER_PYTHON, "bench.sides.taskiq_tasks", _taskiq)
GO = Side("Go", "amqp091-go, amqpworker's queue", OWN_PYTHON, "bench.sides.bare", lambda _: [[str(GO_CONSUMER)]])


def consume(
    bench: Bench, side: Side, task: str, count: int, shape: Shape, until: Until | None = None
) -> tuple[float, float]:
    """
    Return the tasks per second that this side reaches, and the processor time of its worker, its start included.

    With `until` the clock runs until that is done, and no message may be left when the worker has ended.

    Raises:
        SideFailed: it died, or did not do all of them in time.
    """
    with bench.place() as place:
        told = {
            "BENCH_URL": place.url,
            "BENCH_PROCESSES": str(shape.processes),
            "BENCH_THREADS": str(shape.threads),
            "BENCH_QUEUE": QUEUE,
            **side.environment,
        }
        run([side.python, "-m", "bench.sides.fill", side.module, task, str(count)], told)
        bench.broker.wait_until_idle()
        tally = Tally.create(place.folder / "tally", count)
        told |= {"BENCH_TALLY": str(tally.path), **({"BENCH_RESULTS": side.results} if side.results else {})}
        if shape.prefetch is not None:
            told |= {"BENCH_PREFETCH": str(shape.prefetch), "dramatiq_queue_prefetch": str(shape.prefetch)}
        with running(side.commands(shape), told, place.folder / "log") as worker:
            if not tally.wait(PATIENCE, worker.check):
                left = tally.unfinished()
                raise SideFailed(f"{side.name} left {left} of {count} undone after {PATIENCE:.0f} s:\n{worker.tail()}")
            end = until(worker.check) if until else 0
            processor_time = worker.cpu_seconds()
        if until:
            _check_acknowledged(place.url)
        return count / tally.seconds(end), processor_time


def _check_acknowledged(url: str) -> None:
    """Make sure that no message has returned to the queue, as those do that a worker that ended had not acknowledged."""
    with QueueView(url) as queue:
        if left := queue.ready():
            raise SideFailed(f"{left} messages were not acknowledged")


def rate(side: Side, task: str, count: int, shape: Shape, name: str | None = None) -> Measure:
    """Return the measure of `consume`."""

    def measure(bench: Bench) -> Figures:
        return {"tasks/s": consume(bench, side, task, bench.count(count), shape)[0]}

    return Measure(name or side.name, side.note, measure)
