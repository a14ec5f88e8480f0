"""Fixtures for fault scenes, and the balances at the end of the run."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance import oracle
from tests.acceptance.scene import Scene
from tests.conftest import quicken, running_node
from tests.nodes import Node
from tests.support import Broker

MakeScene = Callable[..., Scene]

_numbers = itertools.count(1)


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
    assert not left, f"These did not end when they were asked to: {left}"


@pytest.fixture
def scene(node: Node, make_scene: MakeScene) -> Scene:
    """A scene on the shared node."""
    return make_scene(node)


@pytest.fixture(scope="module")
def own_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node that the tests of one module may kill, alarm and configure."""
    with running_node(tmp_path_factory.mktemp("own")) as own:
        quicken(own)
        yield own


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print every balance."""
    if oracle.told:
        terminalreporter.section("balances")
        for line in oracle.told:
            terminalreporter.write_line(line)
