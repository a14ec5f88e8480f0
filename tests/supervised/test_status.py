"""How a pool that runs reports its status."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from tests.cli import environment, run
from tests.pools import pool
from tests.support import Broker, wait_until


def test_a_pool_is_found_and_shown_with_what_runs_also_while_its_process_hangs(tmp_path: Path, vhost: Broker) -> None:
    where = str(tmp_path / "health.sock")
    with pool(tmp_path, vhost.url, "-p", "1", "-t", "2", "--health", where, broker=vhost) as workers:
        workers.wait_for("process_started")
        (child,) = workers.children()
        workers.send("slow", seconds=60, mark="x")
        wait_until(lambda: workers.ledger() == ["begin x"])
        pid = str(workers.process.pid)
        shown = wait_until(
            lambda: done if "shop.slow" in (done := run(tmp_path, environment(), "status", pid)).out else None
        )
        assert shown.code == 0
        assert "1/1 consuming, 1 running, 0 done" in shown.out
        assert max(map(len, shown.out.splitlines())) <= 80
        listed = json.loads(run(tmp_path, environment(), "workers", "--json").out)
        assert workers.process.pid in [one["pid"] for one in listed]
        (line,) = [one for one in run(tmp_path, environment(), "workers").out.splitlines() if one.startswith(pid)]
        assert "main (shop:app)" in line
        assert "main (shop:app): 1/1 consuming" in shown.out
        workers.send("stuck")
        wait_until((tmp_path / "stuck").exists)
        stands = json.loads(run(tmp_path, environment(), "status", where, "--json").out)
        assert stands["processes"][0]["pid"] == child
        workers.signal(signal.SIGINT)
        workers.wait_for("supervisor_stopping")
        workers.signal(signal.SIGINT)
        workers.end()
    gone = run(tmp_path, environment(), "status", where)
    assert (gone.code, gone.out) == (2, "")
    assert "No supervisor responds" in gone.err


def test_a_place_that_is_taken_is_one_line_and_exit_code_2(tmp_path: Path, vhost: Broker) -> None:
    with pool(tmp_path, vhost.url, "-p", "1", "--health", "127.0.0.1:1x", broker=vhost) as workers:
        assert workers.end() == 2
        assert workers.log.strip() == (
            "amqpworker: --health: give HOST:PORT, such as 127.0.0.1:8080, or the path of a unix socket."
        )
