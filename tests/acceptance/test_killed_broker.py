"""The broker is killed by -9 under load, and everything continues by itself once it is back."""

from __future__ import annotations

import pytest

from tests.acceptance.conftest import MakeScene
from tests.acceptance.oracle import balance
from tests.nodes import Node

ROUNDS = 2
SOME = 200
BACK = 30.0  # seconds from the broker's return to full work; a connection attempt is every five at the latest


@pytest.mark.timeout(180)
def test_the_ledger_balances_when_the_broker_is_killed_under_load(own_node: Node, make_scene: MakeScene) -> None:
    scene = make_scene(own_node)
    scene.pool()
    scene.sender("load", "--threads", "6", "--callers", "2", "--delays", "--pause", "0.01")
    for _ in range(ROUNDS):
        scene.wait_for("confirmed", SOME, timeout=60)
        since = scene.events("end")[-1]["at"] if scene.events("end") else 0.0
        scene.wait_for("answered", 1, since, timeout=60)
        scene.fault("broker killed")
        own_node.save_queues()
        own_node.kill()
        own_node.start()
        back = scene.fault("broker back")
        for kind, count in (("end", SOME), ("confirmed", SOME), ("answered", SOME // 10)):
            scene.wait_for(kind, count, back, BACK)
        # Both processes work, in all four ways: at once, again, after a delay, as a call.
        scene.wait_until(lambda back=back: workers_since(scene.events("end"), back) == 2, BACK, "both work again")
    assert len({line["pid"] for line in scene.events("process")}) == 3, "a process did not come through by itself"
    scene.stop_all("sender")
    result = balance(scene)
    result.check("broker killed twice under load")
    assert result.confirmed == result.tries.keys()
    scene.stop_all("pool")


def workers_since(ends: list[dict[str, object]], since: float) -> int:
    """Count the processes that ended a task since then."""
    return len({line["pid"] for line in ends if float(str(line["at"])) >= since})
