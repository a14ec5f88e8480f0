"""Pausing pools from the command line: several pools, as on several hosts, with several processes each."""

from __future__ import annotations

import json
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from amqpworker import App
from amqpworker.testing.processes import free_ports
from tests.cli import Ended, environment, run
from tests.pools import pool
from tests.support import Broker, wait_until

AT_MOST = 3.0


def ask(port: int, path: str) -> tuple[int, dict[str, Any]]:
    """Return the status code and the body of a response of the health server."""
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def test_a_queue_is_paused_on_all_hosts_which_stay_ready_and_name_it(tmp_path: Path, vhost: Broker) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    (port,) = free_ports(1)
    health = f"127.0.0.1:{port}"

    def command(*arguments: str) -> Ended:
        return run(first, environment(), *arguments, "--app", "shop:app")

    with (
        pool(first, vhost.url, "-p", "2", "-t", "1", "--health", health, broker=vhost) as here,
        pool(second, vhost.url, "-p", "1", "-t", "1", broker=vhost) as there,
    ):
        here.wait_for("process_started", 2, 60)
        there.wait_for("process_started", 1, 60)
        done = command("queues", "pause", "work")
        assert (done.code, done.out) == (0, "The queue 'work' is paused.\n")
        confirmed_at = time.monotonic()
        wait_until(lambda: vhost.consumers("work") == 0, AT_MOST, "no process of any pool consumes it")
        assert time.monotonic() - confirmed_at < AT_MOST
        here.send("slow", seconds=0, mark="x")
        ready = wait_until(lambda: found if (found := ask(port, "/readyz"))[1].get("paused") else None, 5)
        assert ready == (
            200,
            {"status": "2/2 consuming, 0 running, 0 done, paused: queue work", "paused": ["queue work"]},
        )
        shown = run(first, environment(), "status", health)
        assert shown.code == 0
        assert "paused: queue work" in shown.out
        assert vhost.count("work") == 1
        with App(vhost.url) as operator:
            operator.queue("work")
            assert operator.queues.resume("work")
            wait_until(lambda: "end x" in here.ledger() + there.ledger(), 10, "what waited has run")
            wait_until(lambda: not ask(port, "/status")[1]["paused"], 5, "it is shown no longer")
            operator.task(name="shop.slow", queue="work")(lambda: None)
            assert operator.queues.pause_task("shop.slow")
            wait_until(lambda: ask(port, "/readyz")[1].get("paused") == ["task shop.slow"], 5, "the task is shown")
