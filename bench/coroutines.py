"""
How rows about coroutines are measured: one fresh process each, which prints its figures (see `sides/async_*`).

WHAT it does: `sends` or `calls` from 100 coroutines, `one` (sends one by one), `loops` (an event loop for each send).
Sends go into amqpworker's queue, which nothing consumes; calls are replied to by a worker of amqpworker, for all sides.
"""

from __future__ import annotations

import json
from contextlib import ExitStack

from bench import declare
from bench.consuming import OURS, Shape
from bench.context import Bench
from bench.places import OWN_PYTHON, PEER_PYTHON, run, running
from bench.row import Figures, Measure

ENTERED, BY_THREAD, SEND_MANY, AIO_PIKA, FASTSTREAM = "entered", "by the thread", "send_many", "aio-pika", "FastStream"

# Each of 100 coroutines sends at least five messages, however small the scale.
MIN_MESSAGES = 500


def entered(what: str, count: int) -> Measure:
    """Return the measure of amqpworker's coroutines inside `async with app:`."""
    note = "amqpworker inside async with app: a connection of the event loop"
    return _measure(ENTERED, note, [OWN_PYTHON, "-m", "bench.sides.async_ours", what, "entered"], count)


def by_thread(what: str, count: int) -> Measure:
    """Return the measure of amqpworker's coroutines in any other event loop."""
    note = "amqpworker in any other event loop: the connection of the process"
    return _measure(BY_THREAD, note, [OWN_PYTHON, "-m", "bench.sides.async_ours", what, "thread"], count)


def send_many(count: int) -> Measure:
    """Return the measure of amqpworker's `send_many`."""
    note = "amqpworker, one batch, in a thread"
    return _measure(SEND_MANY, note, [OWN_PYTHON, "-m", "bench.sides.async_ours", "send_many", "thread"], count)


def aio_pika(what: str, count: int, note: str = "bare, one channel") -> Measure:
    """Return the measure of bare aio-pika."""
    return _measure(AIO_PIKA, note, [OWN_PYTHON, "-m", "bench.sides.async_aio_pika", what], count)


def faststream(what: str, count: int, note: str) -> Measure:
    """Return the measure of FastStream."""
    return _measure(FASTSTREAM, note, [PEER_PYTHON, "-m", "bench.sides.async_faststream", what], count)


def _measure(side: str, note: str, command: list[str], count: int) -> Measure:
    def measure(bench: Bench) -> Figures:
        with bench.place() as place, ExitStack() as stack:
            environment = {"BENCH_URL": place.url}
            declare.declare(place.url, declare.ours())
            if "calls" in command:
                stack.enter_context(running(OURS.commands(Shape()), environment, place.folder / "log"))
            figures: Figures = json.loads(run([*command, str(bench.count(count, MIN_MESSAGES))], environment))
            return figures

    return Measure(side, note, measure)
