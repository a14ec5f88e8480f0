"""A broker that was restarted: how soon after it is back a scheduler leads again, and sends ticks."""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from amqpworker.testing.node import Node

from bench import declare
from bench.arrivals import Arrivals
from bench.context import Bench
from bench.row import Figures, Limit, Measure, Row
from bench.rows import SCHEDULES
from bench.schedulers import Scheduler, often, scheduler

TIMES = 3
LEAST = 1


def _led_since(candidates: list[Scheduler], moment: float) -> float:
    """Return when the first of them led after a moment."""
    first, second = candidates
    return first.until(lambda: first.led_since(moment) or second.led_since(moment), "a leader")


def ours(bench: Bench) -> Figures:
    """Restart a node of the row's own."""
    leads, ticks = [], []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="amqpworker-bench-")))
        node = Node(folder / "node", tied=True)
        stack.callback(node.discard)
        url = node.start().url()
        declare.declare(url, declare.ours())
        arrivals = stack.enter_context(Arrivals(url))
        candidates = [stack.enter_context(scheduler(url, folder / f"log-{name}", often())) for name in "ab"]
        _led_since(candidates, 0)
        for _ in range(bench.count(TIMES, LEAST)):
            stopped = time.time()
            node.restart()
            led = _led_since(candidates, stopped)
            back = arrivals.connected[-1]
            first = candidates[0].until(lambda: arrivals.first_after(led), "a tick")  # noqa: B023 - called at once
            leads.append(led - back)
            ticks.append(first - back)
    return {"s until one leads, max": max(leads), "s until its first tick, max": max(ticks)}


ROW = Row(
    "broker-back",
    "A broker is restarted, and a scheduler leads again",
    (Measure("amqpworker", f"two schedulers; {TIMES} in each run", ours),),
    (Limit("s until its first tick, max", at_most=1, worst=True),),
    "From when the broker has opened a connection and a channel for a client that tries again every 2 ms.",
    section=SCHEDULES,
)
