"""What administrators and time-outs do to a running system: a queue deleted, connections closed, a channel closed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest
from pika.exceptions import ChannelClosedByBroker

from tests.acceptance.conftest import MakeScene
from tests.acceptance.oracle import balance
from tests.acceptance.scene import QUEUE, Scene
from tests.conftest import quicken
from tests.nodes import Node
from tests.support import Broker

SECONDS = float(os.environ.get("ACCEPTANCE_SECONDS", "20"))
ACK_TIMEOUT = 10


def test_a_queue_that_is_deleted_under_its_consumers_is_consumed_again(scene: Scene) -> None:
    scene.pool()
    scene.sender("load", "--threads", "4", "--delays", "--pause", "0.005")
    # Not by the number of consumers: a process that changes its prefetch has two for a moment.
    scene.wait_until(lambda: scene.said("pool", 10**7).count("queue_consuming") == 2, 30, "both processes consume")
    scene.wait_for("end", 100)
    scene.fault("queue deleted")
    scene.broker.delete_queue(QUEUE)
    scene.wait_until(lambda: scene.said("pool", 10**7).count("consumer_cancelled") >= 2, 30, "both hear of it")
    scene.wait_until(lambda: scene.said("pool", 10**7).count("queue_consuming") >= 4, 30, "both consume again")
    back = scene.fault("consuming again")
    scene.wait_for("end", 100, back)
    scene.stop_all("sender")
    result = balance(scene)
    lost = result.lost()
    # What was in the queue is gone, as the administrator wished; nothing that was sent afterwards is.
    asked = {one: max(line["at"] for line in lines) for one, lines in result.tries.items()}
    assert all(asked[one] <= back for one in lost)
    result.check("queue deleted under its consumers", may_be_lost=lost, may_park=True)
    assert len(lost) < len(result.confirmed) / 2
    scene.stop_all("pool")


@pytest.mark.timeout(240)
def test_fifty_threads_send_while_their_connection_is_closed_every_second(scene: Scene) -> None:
    scene.pool()
    scene.sender("load", "--threads", "50", "--callers", "2", "--pause", "0.2")
    scene.wait_for("confirmed", 50)
    close_connections(scene.broker, int(SECONDS))
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        scene.fault("connections closed")
        time.sleep(0.5)
    calm = scene.fault("calm again")
    for kind in ("end", "confirmed", "answered"):
        scene.wait_for(kind, 50, calm)
    scene.stop_all("sender")
    result = balance(scene, timeout=90)
    ended = [scene.said(log, 10**7).count("CONNECTION_FORCED") for log in ("sender", "pool")]
    result.check(f"50 threads for {SECONDS:g} s, connections closed by an administrator: {ended} (sender, workers)")
    assert min(ended) >= SECONDS / 2
    assert result.confirmed == result.tries.keys()
    scene.stop_all("pool")


def consumers(broker: Broker) -> int:
    """Count the consumers of the work queue; 0 where it is gone."""
    try:
        return broker.consumers(QUEUE)
    except ChannelClosedByBroker:
        return 0


def close_connections(broker: Broker, times: int) -> None:
    """Have the node close every connection of the virtual host each second; its HTTP API sees them five seconds late."""
    close = (
        f"rabbit_connection_tracking_handler:close_connections(rabbit_connection_tracking:list(<<{broker.vhost!r}>>), "
        f"'closed by an administrator', 0)"
    ).replace("'", '"')
    loop = f"fun Loop(0) -> ok; Loop(N) -> {close}, timer:sleep(1000), Loop(N - 1) end"
    broker.node.rabbitmqctl("eval", f"spawn(fun() -> ({loop})({times}) end).")


def test_a_task_longer_than_the_ack_timeout_costs_doubles_but_no_message_and_no_worker(
    make_node: Callable[..., Node], make_scene: MakeScene
) -> None:
    node = make_node(extra_config=f"consumer_timeout = {ACK_TIMEOUT}000")
    quicken(node.start())
    scene = make_scene(node, settings={"ack_timeout": str(ACK_TIMEOUT)})
    scene.send("batch", "--count", "2", "--only", "slow_at_first", "--seconds", str(ACK_TIMEOUT * 1.5))
    scene.pool("-p", "2", "-t", "2")
    scene.sender("load", "--threads", "2", "--pause", "0.05")
    scene.wait_for("start", 2)
    scene.wait_until(lambda: "delivery acknowledgement" in scene.said("pool", 10**6), 60, "the broker closes a channel")
    closed = scene.fault("ack timeout")
    scene.wait_until(lambda: slow_ends(scene) >= 4, 60, "the long tasks have ended, and once more")
    scene.wait_until(lambda: consumers(scene.broker) == 2, 30, "both processes consume again")
    scene.wait_for("end", 50, closed)
    scene.stop_all("sender")
    result = balance(scene)
    result.check("tasks longer than the ack timeout")
    assert result.confirmed == result.tries.keys()
    assert len(scene.events("process")) == 4, "a worker did not come through by itself"
    scene.stop_all("pool")


def slow_ends(scene: Scene) -> int:
    """Count the ends of the long tasks."""
    return sum(line["task"] == "slow at first" for line in scene.events("end"))
