"""A node of a cluster of three is lost, with the connection of the scheduler that leads or without: how late ticks become."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.nodes import Member, Node

from bench import declare
from bench.arrivals import Arrivals
from bench.context import Bench
from bench.row import Figures, Limit, Measure, Row
from bench.rows import SCHEDULES
from bench.schedulers import DISTANCE, often, scheduler

SECONDS = 3.0
SETTLING = 1.0


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


def measure(at: int) -> Callable[[Bench], Figures]:
    """Return what measures the loss of the first node while the scheduler that leads is connected to this one."""

    def run(_: Bench) -> Figures:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="amqpworker-bench-")))
            nodes = stack.enter_context(_cluster(folder))
            declare.declare(nodes[0].url(), declare.ours())
            arrivals = stack.enter_context(Arrivals(nodes[2].url()))
            leader = stack.enter_context(scheduler(nodes[at].url(), folder / "log-leader", often()))
            leader.until(leader.led_since, "a leader")
            standby = stack.enter_context(scheduler(nodes[1].url(), folder / "log-standby", often()))
            standby.wait_for("scheduler_standby")
            time.sleep(SETTLING)
            began = time.time()
            nodes[0].kill()

            def arrived() -> dict[float, float] | None:
                first: dict[float, float] = {}
                for tick in arrivals.ticks:
                    if began <= tick.nominal < began + SECONDS:
                        first.setdefault(tick.nominal, tick.arrived)
                return first if len(first) >= int(SECONDS / DISTANCE) else None

            late = [arrival - nominal for nominal, arrival in standby.until(arrived, "all ticks", look=0.1).items()]
        return {"s late, max": max(late)}

    return run


ROW = Row(
    "node-lost",
    "A node of a cluster is lost",
    (
        Measure("with the leader", "the scheduler that leads was connected to it", measure(0)),
        Measure("beside the leader", "the scheduler that leads is connected to another node", measure(1)),
    ),
    tuple(Limit("s late, max", at_most=1, of=side, worst=True) for side in ("with the leader", "beside the leader")),
    "Three nodes with their default settings; kill -9, once in each run, of the one on which all queues have their leaders. "
    "200 schedules, of which one is due every 10 ms: the latest of all ticks that were due in the 3 s after that, each by "
    "its first arrival. In the second case the same scheduler leads on.",
    section=SCHEDULES,
)
