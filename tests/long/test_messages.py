"""The message soak: everything that sends and runs, while broker, workers and network fail one after the other."""

from __future__ import annotations

import itertools
import random
import time

import pytest

from tests.acceptance.conftest import MakeScene
from tests.acceptance.oracle import DEAD, PARKED, balance
from tests.acceptance.scene import QUEUE, Scene
from tests.long.conftest import LONG, SECONDS, TIMEOUT, tell
from tests.long.faults import LONG as LONG_FAULTS
from tests.long.faults import SHORT as SHORT_FAULTS
from tests.long.faults import Faults
from tests.nodes import Node
from tests.proxy import Proxy

SENDERS = 3
PAUSE = 0.02 if LONG else 0.04
LOAD = ("--threads", "6", "--many", "1", "--callers", "1", "--delays", "--pause", str(PAUSE))
LEAST = 100_000 if LONG else 1_000
CALM = 1_000 if LONG else 50
"""So many messages are sent and run after each fault, before the next."""
BACK = 60.0


@pytest.mark.timeout(TIMEOUT)
def test_no_confirmed_message_is_lost_or_early_while_broker_workers_and_network_fail(
    own_node: Node, make_scene: MakeScene
) -> None:
    scene = make_scene(own_node, settings={"heartbeat": "8"})
    chosen = random.Random(20261129)
    with Proxy(scene.broker.url) as senders, Proxy(scene.broker.url) as workers:
        pool = scene.pool("-p", "3", "-t", "8", url=workers.url)
        for _ in range(SENDERS):
            scene.sender("load", *LOAD, url=senders.url)
        scene.wait_for("answered", 10)
        faults = Faults(scene, own_node, (senders, workers), LONG_FAULTS if LONG else SHORT_FAULTS, chosen)
        disturb(scene, faults)
        scene.stop_all("sender", timeout=120)
        result = balance(scene, timeout=300)
        scene.stop_all("pool")
    left = {queue: scene.broker.count(queue) for queue in (QUEUE, DEAD, PARKED)}
    told = ", ".join(f"{what} {count}" for what, count in sorted(faults.counts.items()))
    tell("messages", f"{len(result.confirmed):,}", told, str(result))
    result.check("message soak")
    assert result.confirmed == result.tries.keys()
    assert len(result.confirmed) >= LEAST
    assert set(left.values()) <= {0, -1}, left
    assert pool.returncode == 0
    assert not scene.living()
    assert "Traceback" not in scene.said("sender", 10**8)


def disturb(scene: Scene, faults: Faults) -> None:
    """Do one fault after the other, each of the kinds at least once, and see that all is at work again in between."""
    end = time.monotonic() + SECONDS
    for turn in itertools.count():
        for fault in faults.all():
            if turn and time.monotonic() >= end and scene.count("confirmed") >= LEAST:
                return
            fault()
            healed = time.time()
            for kind, count in (("end", CALM), ("confirmed", CALM), ("answered", SENDERS)):
                scene.wait_for(kind, count, healed, BACK)
