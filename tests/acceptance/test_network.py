"""A network that resets connections in mid-frame, and one that swallows what the broker sends."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.acceptance.oracle import balance
from tests.acceptance.scene import Scene, copies_wait
from tests.proxy import Direction, Proxy
from tests.support import wait_until

RESETS = 20
MOST_BYTES = 20_000
WAYS: tuple[Direction, ...] = ("to_broker", "to_client")


@pytest.fixture
def proxied(scene: Scene) -> Iterator[tuple[Scene, Proxy, Proxy]]:
    """A scene whose sender and whose workers each have a network of their own to the broker."""
    with Proxy(scene.broker.url) as senders, Proxy(scene.broker.url) as workers:
        yield scene, senders, workers


def test_connections_that_are_reset_in_mid_frame_lose_nothing(proxied: tuple[Scene, Proxy, Proxy]) -> None:
    scene, senders, workers = proxied
    scene.pool(url=workers.url)
    scene.sender("load", "--threads", "6", "--callers", "2", "--delays", "--pause", "0.01", url=senders.url)
    scene.wait_for("answered", 10)
    chosen = random.Random(20261125)
    for number in range(RESETS):
        proxy = (senders, workers)[number % 2]
        accepted = proxy.accepted
        proxy.reset_after(chosen.randint(1, MOST_BYTES), chosen.choice(WAYS))
        wait_until(lambda proxy=proxy, accepted=accepted: proxy.accepted > accepted, 30, "connected again")
        scene.fault("connections reset")
    healed = scene.fault("network healed")
    for proxy in (senders, workers):
        proxy.heal()
    for kind in ("end", "confirmed", "answered"):
        scene.wait_for(kind, 50, healed, timeout=30)
    scene.stop_all("sender")
    result = balance(scene)
    result.check(f"connections reset {RESETS} times")
    assert result.confirmed == result.tries.keys()
    scene.stop_all("pool")


def test_confirms_that_are_swallowed_leave_an_unknown_that_can_be_sent_again(
    proxied: tuple[Scene, Proxy, Proxy],
) -> None:
    scene, senders, workers = proxied
    scene.settings = {"send_timeout": "1.5", "heartbeat": "4"}
    scene.pool("-p", "2", "-t", "8", url=workers.url)
    scene.sender("load", "--threads", "4", "--delays", "--pause", "0.01", url=senders.url)
    for _ in range(2):
        scene.wait_for("end", 20, scene.fault("before"))
        unknown = scene.count("unknown")
        with swallowing(scene, senders):
            scene.wait_for("unknown", unknown + 4)
    scene.stop_all("sender")
    # The workers' turn: tasks run that will fail, and the broker's word on their copies is not to arrive.
    began = scene.fault("before")
    scene.send("batch", "--count", "64", "--only", "flaky", "--seconds", "0.5")
    scene.wait_for("start", 32, began)
    with swallowing(scene, workers):
        scene.wait_until(lambda: copies_wait(scene.said("pool", 10**6)), 30, "copies wait for their confirms")
    healed = scene.fault("network healed")
    scene.wait_for("end", 32, healed)
    result = balance(scene)
    result.check("confirms swallowed")
    assert result.confirmed == result.tries.keys()
    scene.stop_all("pool")


@contextmanager
def swallowing(scene: Scene, proxy: Proxy) -> Iterator[None]:
    """Swallow what the broker sends, then end the connections: what was swallowed would spoil the stream."""
    scene.fault("network swallows")
    proxy.swallow("to_client")
    try:
        yield
    finally:
        proxy.heal()
        proxy.reset()
        scene.fault("connections reset")
