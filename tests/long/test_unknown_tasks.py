"""What messages of a task that never comes cost: a few rounds through the delay ladder, then they are dead."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from amqpworker import App
from amqpworker.model.message import Message, new_id
from amqpworker.policies.unknown_wait import LONGEST, PATIENCE
from tests.long.conftest import LONG, tell
from tests.nodes import Node
from tests.pools import pool
from tests.support import Broker, wait_until

MESSAGES = 10_000 if LONG else 2_000
# The short form ends after three rounds, the long one once all are dead.
ROUNDS = 3
MOST_BROKER_SECONDS = 30.0
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


@pytest.mark.timeout(1200)
def test_messages_of_a_task_that_never_comes_cost_the_broker_little(tmp_path: Path, own_node: Node) -> None:
    broker = Broker(own_node, "/")
    erlang = int(own_node.rabbitmqctl("eval", "list_to_integer(os:getpid())."))
    with pool(
        tmp_path, own_node.url(), "-p", "1", "-t", "4", *([] if LONG else ["--log-level", "debug"]), broker=broker
    ) as workers:
        workers.wait_for("process_started")
        (worker,) = workers.children()
        before, before_in_worker = cpu_seconds(erlang), cpu_seconds(worker)
        with App(own_node.url()) as app:
            app.queue("work")
            app.send_many([Message("shop.never", "work", b"{}", new_id()) for _ in range(MESSAGES)])
        if LONG:
            wait_until(lambda: broker.count("work.dead") == MESSAGES, PATIENCE + 3 * LONGEST, "all are dead")
            assert broker.count("work") == 0
            spent, spent_in_worker = cpu_seconds(erlang) - before, cpu_seconds(worker) - before_in_worker
            tell(
                "unknown task", f"{MESSAGES:,}", "none", f"broker {spent:.1f} s of CPU, worker {spent_in_worker:.1f} s"
            )
            assert spent <= MOST_BROKER_SECONDS
        else:
            wait_until(lambda: len(workers.events("task_deferred")) >= ROUNDS * MESSAGES, 60, f"{ROUNDS} rounds")
        assert len(workers.events("task_unknown")) <= PATIENCE / 60 + 2, "one line per minute"
        workers.signal(signal.SIGTERM)
        assert workers.end() == 0
