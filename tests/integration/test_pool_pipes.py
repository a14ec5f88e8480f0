"""The pipes between a pool and its processes, and tasks that meddle with them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests import workertasks
from tests.programs import Program, whole_lines
from tests.support import Broker, wait_until
from tests.workers import real_worker


def send(broker: Broker, task: str, body: str) -> None:
    properties = {"type": task, "delivery_mode": 2}
    assert broker.management.publish(broker.vhost, "amqpworker.tasks", workertasks.QUEUE, body, properties)


def told(folder: Path) -> list[str]:
    return [line.split()[0] for line in whole_lines(folder / "runs.txt")]


def end(worker: Program) -> None:
    worker.signal(signal.SIGTERM)
    assert worker.end() == 0


def test_what_a_task_starts_finds_the_end_of_standard_input_and_holds_no_pipe_of_ours(
    vhost: Broker, tmp_path: Path
) -> None:
    with real_worker(vhost, tmp_path, pool=1, threads=1) as worker:
        worker.wait_for("pool_started")
        send(vhost, "start-others", "{}")
        wait_until(lambda: told(tmp_path), 20, "it has run")
        assert told(tmp_path) == ["read-0-bytes,holds-[]"]
        end(worker)


def test_a_task_that_writes_into_the_pipe_of_reports_does_not_end_the_pool(vhost: Broker, tmp_path: Path) -> None:
    with real_worker(vhost, tmp_path, pool=2, threads=1) as worker:
        worker.wait_for("process_started", 2)
        for count in (1, 100_000):
            send(vhost, "scribble", f'{{"count": {count}}}')
        wait_until(lambda: len(told(tmp_path)) == 2, 20, "both have run")
        worker.wait_for("report_unreadable")
        os.kill(worker.wait_for("process_started")[0]["pid"], 9)
        worker.wait_for("process_started", 3)
        end(worker)
        assert 1 <= len(worker.events("report_unreadable")) <= 2, "once for each process"
