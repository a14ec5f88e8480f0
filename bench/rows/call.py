"""`call()`: one at a time against a bare pika round trip, and from 256 threads against Celery's `rpc://`."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from typing import Any

from bench import declare
from bench.consuming import CELERY, OURS, Shape
from bench.context import Bench
from bench.places import OWN_PYTHON, PEER_PYTHON, run, running
from bench.row import Figures, Measure, Ratio, Row

COUNT_ONE = 3_000
COUNT_MANY = 6_400
PIKA_SERVER = [OWN_PYTHON, "-m", "bench.sides.rpc_server"]
RPC = {"BENCH_RPC": "yes"}


def answer(bench: Bench, server: Sequence[Sequence[str]], client: Sequence[str]) -> Any:
    """Start a server and return what the client printed."""
    with bench.place() as place:
        told = {"BENCH_URL": place.url, **RPC}
        if client[0] == OWN_PYTHON:
            declare.declare(place.url, declare.ours())
        with running(server, told, place.folder / "log") as worker:
            printed = run(client, told)
            worker.check()
    return json.loads(printed)


def _times(bench: Bench, server: Sequence[Sequence[str]], client: Sequence[str]) -> Figures:
    times = sorted(answer(bench, server, [*client, str(bench.count(COUNT_ONE))]))
    return {"ms p50": statistics.median(times) * 1000, "ms p99": times[int(len(times) * 0.99)] * 1000}


def _calls(bench: Bench, server: Sequence[Sequence[str]], client: Sequence[str]) -> Figures:
    return answer(bench, server, [*client, str(bench.count(COUNT_MANY, least=512))])


def ours_one(bench: Bench) -> Figures:
    """Call one at a time."""
    return _times(bench, OURS.commands(Shape(threads=1)), [OWN_PYTHON, "-m", "bench.sides.rpc_ours", "one"])


def pika_one(bench: Bench) -> Figures:
    """Ask one at a time, with pika alone."""
    return _times(bench, [PIKA_SERVER], [OWN_PYTHON, "-m", "bench.sides.rpc_pika"])


def ours_many(bench: Bench) -> Figures:
    """Call from 256 threads."""
    return _calls(bench, OURS.commands(Shape()), [OWN_PYTHON, "-m", "bench.sides.rpc_ours", "threads"])


def celery_many(bench: Bench) -> Figures:
    """Keep 256 calls in flight."""
    return _calls(bench, CELERY.commands(Shape()), [PEER_PYTHON, "-m", "bench.sides.rpc_celery"])


ROW = Row(
    "call",
    "call(): one at a time, and from 256 threads",
    (
        Measure("amqpworker", "one at a time, 1 runner thread", ours_one),
        Measure("bare pika", "one at a time, over amqpworker's queue, 1 runner thread", pika_one),
        Measure("amqpworker × 256", "256 threads, 8 runner threads", ours_many),
        Measure("Celery rpc://", "256 in flight, pool of 8 threads", celery_many),
    ),
    (
        Ratio("bare pika", "ms p50", at_most=1.2),
        Ratio("Celery rpc://", "calls/s", at_least=8, of="amqpworker × 256"),
    ),
)
