"""Schedulers on three nodes: the one that a leader needs dies, another scheduler leads, and no tick is missed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.conftest import VHOST, Cluster
from tests.schedulers import PATIENCE, SECOND, TOKENS, Ticks, judge, now, schedulers, starts_from

SCHEDULES = 20


@pytest.mark.timeout(300)
def test_another_leads_and_nothing_is_missed_when_the_node_of_a_leader_and_of_its_queue_dies(
    cluster: Cluster, tmp_path: Path
) -> None:
    first, second, third = (node.url(VHOST) for node in (cluster.first, cluster.second, cluster.third))
    with schedulers(tmp_path, f"{third},{second}", count=SCHEDULES) as running, Ticks(third) as arriving:
        declare(tmp_path, first)
        leader = running.start(first)
        since = starts_from(leader)
        for _ in range(2):
            running.start().wait_for("scheduler_standby", timeout=PATIENCE)
        arriving.wait_for_time(now(), SCHEDULES)
        assert cluster.second.management.queue(VHOST, TOKENS)["leader"] == cluster.first.name
        cluster.first.kill()
        leader.wait_for("scheduler_lost_leadership", timeout=PATIENCE)
        running.kill(running.leader())
        running.leader()
        until = now() + SECOND
        arriving.wait_for_time(until, SCHEDULES)
        judge(arriving.arrived(), SCHEDULES, since, until).check()


def declare(folder: Path, url: str) -> None:
    """Declare all that the schedulers need, on this node: it leads the queues."""
    command = [sys.executable, "-P", "-m", "amqpworker", "topology", "declare", "ticking:app", "--scheduler", "main"]
    subprocess.run(command, cwd=folder, env={**os.environ, "AMQPWORKER_URL": url}, check=True, timeout=60)
