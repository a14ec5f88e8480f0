"""Three nodes that are one cluster, for one test each: what a test kills stays down."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.acceptance.scene import Scene
from tests.conftest import TEST_CONFIG, quicken, throw_away
from tests.nodes import Member, Node
from tests.support import Broker

VHOST = "cluster"


@dataclass(frozen=True)
class Cluster:
    """The nodes, the first of which is the first of every list of addresses."""

    first: Node
    second: Node
    third: Node

    @property
    def url(self) -> str:
        """The addresses of all three, as a service is given them."""
        return ",".join(node.url(VHOST) for node in (self.first, self.second, self.third))


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Run three nodes with an empty virtual host."""
    first = Node(tmp_path / "first", extra_config=TEST_CONFIG, tied=True)
    others = [Member(tmp_path / name, first, extra_config=TEST_CONFIG, tied=True) for name in ("second", "third")]
    try:
        first.start()
        with ThreadPoolExecutor() as at_once:
            list(at_once.map(Node.start, others))
            for node in others:  # one by one: the second to come must find the first
                node.join()
            list(at_once.map(quicken, (first, *others)))
        first.create_vhost(VHOST)
        yield Cluster(first, *others)
    finally:
        for node in (*others, first):
            throw_away(node)


@pytest.fixture
def scene(cluster: Cluster, tmp_path: Path) -> Iterator[Scene]:
    """A scene whose processes know all three nodes, observed through the second: all queues are led by the first."""
    made = Scene(Broker(cluster.second, VHOST), tmp_path / "scene", url=cluster.url)
    try:
        declaring = made.start(
            "amqpworker", "topology", "declare", "jobs:app", log="declare", url=cluster.first.url(VHOST)
        )
        assert declaring.wait(60) == 0, made.said("declare")
        yield made
    finally:
        left = made.close()
    assert not left, f"These did not end when they were asked to: {left}"
