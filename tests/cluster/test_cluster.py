"""What a cluster is for: the loss of one node of three is not noticed, that of two is reported at once."""

from __future__ import annotations

import time

import pytest

from tests.acceptance.oracle import balance
from tests.acceptance.scene import QUEUE, Scene
from tests.cluster.conftest import VHOST, Cluster

THREADS = 50
BEFORE, AFTER = 500, 5000
TOLD_WITHIN = 15.0


def failures(scene: Scene) -> dict[str, str]:
    """Return the sends that failed, each with its error."""
    return {line["id"]: line["why"] for line in scene.events("refused", "unknown")}


def leader(scene: Scene, queue: str = QUEUE) -> str:
    """Return the node that leads a queue."""
    return str(scene.broker.management.queue(VHOST, queue)["leader"])


@pytest.mark.timeout(240)
def test_no_send_fails_and_all_run_when_the_node_of_the_leader_dies_and_stays_down(
    cluster: Cluster, scene: Scene
) -> None:
    scene.pool("-p", "2", "-t", "8")
    scene.sender("load", "--threads", str(THREADS), "--only", "plain", "--pause", "0.05")
    scene.wait_for("end", BEFORE, timeout=60)
    assert leader(scene) == cluster.first.name
    killed = scene.fault("leader's node killed")
    cluster.first.kill()
    scene.wait_until(
        lambda: scene.count("confirmed", killed) >= AFTER or failures(scene) != {},
        90,
        f"{AFTER} messages are confirmed",
    )
    assert failures(scene) == {}
    scene.wait_for("end", AFTER, killed, timeout=60)
    assert leader(scene) != cluster.first.name
    scene.stop_all("sender")
    result = balance(scene)
    result.check(f"leader's node killed and kept down, {THREADS} threads")
    assert failures(scene) == {}
    assert result.ends.keys() == result.confirmed == result.tries.keys()
    assert not cluster.first.status().running
    scene.stop_all("pool")


@pytest.mark.timeout(240)
def test_the_check_of_the_topology_soon_reports_that_two_of_three_nodes_are_down(
    cluster: Cluster, scene: Scene
) -> None:
    management = ("--management", cluster.second.management_url)
    assert check(scene, "sound", *management)[0] == 0, scene.said("sound")
    for node in (cluster.first, cluster.third):
        node.kill()
    code, seconds = check(scene, "minority", *management)
    assert code != 0, scene.said("minority")
    assert "no majority" in scene.said("minority")
    assert seconds < TOLD_WITHIN, f"{seconds:.1f} s{scene.said('minority')}"
    # AMQP alone may not show it (3.10.8 answers a declaration as if all were well), but no client has to wait for it.
    _, seconds = check(scene, "by AMQP alone")
    assert seconds < TOLD_WITHIN, f"{seconds:.1f} s{scene.said('by AMQP alone')}"


def check(scene: Scene, log: str, *options: str) -> tuple[int, float]:
    """Check the topology, and return the exit code and how long that took."""
    began = time.monotonic()
    process = scene.start("amqpworker", "topology", "check", "jobs:app", *options, log=log)
    return process.wait(90), time.monotonic() - began
