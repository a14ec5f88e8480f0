"""Messages behind long tasks: they run elsewhere in the pool as soon as a thread is idle there."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.pools import pool
from tests.support import Broker, wait_until

SHORT = [f"s{number}" for number in range(9)]


def test_what_waits_behind_long_tasks_runs_in_an_idle_process_and_all_consume_again_when_they_end(
    tmp_path: Path, vhost: Broker
) -> None:
    with pool(tmp_path, vhost.url, "-p", "3", "-t", "1", "--prefetch", "4", broker=vhost) as workers:
        workers.wait_for("process_started", 3)
        for mark in ("a", "b"):
            workers.send("slow", seconds=600, mark=mark)
            wait_until(lambda mark=mark: f"begin {mark}" in workers.ledger(), what="it runs")  # type: ignore[misc]
        for mark in SHORT:
            workers.send("slow", seconds=0, mark=mark)
        wait_until(lambda: {f"end {mark}" for mark in SHORT} <= set(workers.ledger()), 40, "the end of the short ones")
        assert not {"end a", "end b"} & set(workers.ledger()), "while the long ones run"
        requeued = workers.events("deliveries_requeued")
        assert 1 <= sum(line["count"] for line in requeued) <= len(SHORT)
        assert {(line["level"], line["reason"], line["waited"]) for line in requeued} == {
            ("info", "another process has an idle thread", 5.0)
        }
        assert workers.events("supervisor_unresponsive") == []
        (tmp_path / "go").touch()
        wait_until(lambda: vhost.consumers("work") == 3, 20, "three consumers")
        workers.signal(signal.SIGTERM)
        assert workers.end() == 0
        assert vhost.count("work") == 0
        assert sorted(workers.ledger()).count("begin a") == 1
        assert sorted(line for line in workers.ledger() if line.startswith("end s")) == [f"end {one}" for one in SHORT]
