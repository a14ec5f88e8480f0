"""Under a memory alarm nothing can be published: what must be, waits, and continues when it ends."""

from __future__ import annotations

from tests.acceptance.conftest import MakeScene
from tests.acceptance.oracle import balance
from tests.acceptance.scene import copies_wait
from tests.nodes import Node


def test_copies_wait_while_the_broker_is_under_a_memory_alarm(own_node: Node, make_scene: MakeScene) -> None:
    scene = make_scene(own_node, settings={"send_timeout": "2"})
    scene.send("batch", "--count", "300", "--only", "flaky")
    with own_node.alarm():
        scene.pool()
        scene.wait_until(lambda: "connection_blocked" in scene.said("pool", 10**6), 30, "the workers hear of the alarm")
        scene.wait_until(lambda: copies_wait(scene.said("pool", 10**6)), 30, "a copy waits in vain")
        assert scene.broker.count("work") + scene.count("start") >= 300
        sender = scene.sender("load", "--threads", "2", "--only", "plain")
        scene.wait_for("unknown", 2, timeout=20)
        assert not any(line["attempt"] == 2 for line in scene.events("start")), "a copy passed the alarm"
    calm = scene.fault("alarm over")
    scene.wait_for("end", 300, calm, timeout=60)
    scene.stop_all("sender")
    assert sender.returncode == 0
    result = balance(scene)
    result.check("memory alarm while workers retry")
    assert result.confirmed == result.tries.keys() == result.ends.keys()
    scene.stop_all("pool")
