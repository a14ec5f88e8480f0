"""Fixtures for fault scenes, and the balances at the end of the run."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from amqpworker.testing import Node
from tests.acceptance import oracle
from tests.acceptance.scene import Scene
from tests.conftest import running_node
from tests.support import Broker

MakeScene = Callable[..., Scene]

_numbers = itertools.count(1)


QUICKER = {
    "quorum_tick_interval": 500,  # how often a quorum queue tells its counts: 5 s
    "channel_tick_interval": 2000,  # how often a channel looks at the ack timeout: 60 s
    "dead_letter_worker_publisher_confirm_timeout": 5000,  # when a dead-lettering whose target went is tried again: 180 s
}


def quicken(node: Node) -> None:
    """Have the node do in milliseconds what it does in minutes by default; these have no place in rabbitmq.conf."""
    settings = ", ".join(f"application:set_env(rabbit, {name}, {value})" for name, value in QUICKER.items())
    node.rabbitmqctl("eval", f"{settings}.")


@pytest.fixture(scope="session")
def calm_node(node: Node) -> Node:
    """The shared node, with quick figures."""
    quicken(node)
    return node


@pytest.fixture
def make_scene(tmp_path: Path) -> Iterator[MakeScene]:
    """Make scenes, each in a virtual host of its own; afterwards their processes are ended, and none may be left."""
    made: list[Scene] = []

    def make(node: Node, **given: Any) -> Scene:
        broker = Broker(node, f"scene-{next(_numbers)}")
        node.create_vhost(broker.vhost)
        made.append(Scene(broker, tmp_path / broker.vhost, **given))
        return made[-1]

    yield make
    left = [process for scene in made for process in scene.close()]
    for scene in made:
        scene.broker.management.delete_vhost(scene.broker.vhost)
    assert not left, f"These did not end when they were told to: {left}"


@pytest.fixture
def scene(calm_node: Node, make_scene: MakeScene) -> Scene:
    """A scene on the shared node."""
    return make_scene(calm_node)


@pytest.fixture(scope="module")
def own_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node that the tests of one module may kill, alarm and configure."""
    with running_node(tmp_path_factory.mktemp("own")) as own:
        quicken(own)
        yield own


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell every balance."""
    if oracle.told:
        terminalreporter.section("balances")
        for line in oracle.told:
            terminalreporter.write_line(line)
