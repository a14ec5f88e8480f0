"""A node of a cluster of three is lost, and the scheduler that leads with it: how soon another one leads, and sends ticks."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.nodes import Member, Node

from bench import declare
from bench.arrivals import Arrivals
from bench.context import Bench
from bench.row import Figures, Limit, Measure, Row
from bench.rows import SCHEDULES
from bench.schedulers import often, scheduler


@contextmanager
def _cluster(folder: Path) -> Iterator[list[Node]]:
    """Run three nodes that are one cluster."""
    first = Node(folder / "first", tied=True)
    others = [Member(folder / name, first, tied=True) for name in ("second", "third")]
    try:
        first.start()
        with ThreadPoolExecutor() as at_once:
            list(at_once.map(Node.start, others))
        for node in others:
            node.join()
        yield [first, *others]
    finally:
        for node in (*others, first):
            node.discard()


def ours(_: Bench) -> Figures:
    """Kill the node that leads all queues, and to which the leader is connected."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="amqpworker-bench-")))
        nodes = stack.enter_context(_cluster(folder))
        urls = [node.url() for node in nodes]
        declare.declare(urls[0], declare.ours())
        arrivals = stack.enter_context(Arrivals(urls[1]))
        leader = stack.enter_context(scheduler(",".join(urls), folder / "log-leader", often()))
        leader.until(leader.led_since, "a leader")
        standby = stack.enter_context(scheduler(",".join(reversed(urls)), folder / "log-standby", often()))
        standby.wait_for("scheduler_standby")
        began = time.time()
        nodes[0].kill()
        led = standby.until(lambda: standby.led_since(began) or leader.led_since(began), "another leader")
        first = standby.until(lambda: arrivals.first_after(led), "a tick")
    return {"s until one leads": led - began, "s until its first tick": first - began}


ROW = Row(
    "node-lost",
    "A node of a cluster is lost, and with it the scheduler that leads",
    (Measure("amqpworker", "kill -9 of the node that also leads all queues, one in each run", ours),),
    (Limit("s until its first tick", at_most=1, worst=True),),
    "Three nodes with their default settings. The schedulers are connected to different nodes.",
    section=SCHEDULES,
)
