"""A pool whose processes adapt how many messages they hold: quick tasks have more held, slow ones are left to others."""

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path

from amqpworker import App
from amqpworker.model.message import Message, new_id
from tests.pools import pool
from tests.support import Broker, wait_until

TASKS = """
@app.task(name="shop.nap", queue="work", retry=None)
def nap(mark: str) -> None:
    note(f"nap {os.getpid()}")
    time.sleep(0.5)

@app.task(name="shop.quick", queue="work", retry=None)
def quick(mark: str) -> None:
    note(f"quick {mark}")

@app.task(name="shop.coroutine", queue="work", retry=None)
async def coroutine() -> None: ...
"""


def send(vhost: Broker, task: str, count: int) -> None:
    with App(vhost.url) as app:
        app.queue("work")
        bodies = (json.dumps({"mark": f"{number}"}).encode() for number in range(count))
        app.send_many(Message(f"shop.{task}", "work", body, new_id()) for body in bodies)


def test_quick_tasks_run_once_each_while_the_processes_come_to_hold_more(tmp_path: Path, vhost: Broker) -> None:
    with pool(tmp_path, vhost.url, "-p", "2", "-t", "2", broker=vhost, more=TASKS) as workers:
        workers.wait_for("process_started", 2)
        send(vhost, "quick", 5000)
        wait_until(lambda: len(workers.ledger()) >= 5000, 60, "all have run")
        vhost.wait_for_count("work", 0)
        changes = workers.wait_for("prefetch_changed", 2)
        assert {(line["queue"], line["before"]) for line in changes} == {("work", 2)}, "one of each process"
        assert all(line["prefetch"] > 32 for line in changes)
        assert set(Counter(workers.ledger()).values()) == {1}
        assert vhost.count("work.dead") == 0
        workers.signal(signal.SIGTERM)
        assert workers.end() == 0


def test_a_process_that_joins_late_finds_slow_tasks_although_an_async_one_shares_their_queue(
    tmp_path: Path, vhost: Broker
) -> None:
    with pool(tmp_path, vhost.url, "-p", "1", "-t", "4", broker=vhost, more=TASKS) as workers:
        workers.wait_for("process_started")
        send(vhost, "nap", 60)
        wait_until(workers.ledger, what="the first one is busy")
        workers.signal(signal.SIGTTIN)
        wait_until(lambda: len(set(workers.ledger())) == 2, 30, "the second one has begun, too")
        wait_until(lambda: len(workers.ledger()) == 60, 30, "all have begun")
        assert workers.events("deliveries_requeued") == [], "none was held by one that could not run it"
