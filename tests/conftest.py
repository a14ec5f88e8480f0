"""
Fixtures for tests against a real broker.

The shared node starts when the first test asks for it and never for a unit test. Nodes are tied to the test process:
none outlives it, even when it is killed.
"""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from amqpworker.testing import node as node_module
from tests.nodes import Node
from tests.support import Broker

# The figures of the management API are otherwise up to five, its lists up to ten seconds old.
TEST_CONFIG = """\
collect_statistics_interval = 500
management.sample_retention_policies.global.minute = 1
management.sample_retention_policies.basic.minute = 1
management.sample_retention_policies.detailed.10 = 1
"""

QUICKER = {
    "quorum_tick_interval": 500,  # how often a quorum queue reports its counts: 5 s
    "channel_tick_interval": 2000,  # how often a channel checks the ack timeout: 60 s
    "dead_letter_worker_publisher_confirm_timeout": 5000,  # when a dead-lettering whose target went is tried again: 180 s
}

FROM_SYSTEMD = {"CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "RUNTIME_DIRECTORY", "WATCHDOG_PID", "WATCHDOG_USEC"}
"""What systemd, or `systemd-nspawn`, gives to the tests themselves."""

_numbers = itertools.count(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the tests run against another RabbitMQ than the installed one."""
    parser.addoption("--rabbitmq", metavar="FOLDER", type=Path, help="where its rabbitmq-server and rabbitmqctl are")


def pytest_configure(config: pytest.Config) -> None:
    """Keep the settings of the user who runs the tests out of them, and take the RabbitMQ that was asked for."""
    if (folder := config.getoption("--rabbitmq")) is not None:
        node_module.scripts_folder = lambda: folder  # type: ignore[attr-defined]
    # A shell has its jobs in the background ignore Ctrl-C, and they hand that down to the programs that are tested.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in list(os.environ):
        if name in FROM_SYSTEMD or (name.startswith("AMQPWORKER_") and name != "AMQPWORKER_PYTHON"):
            del os.environ[name]


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Undo what a test's `configure` or a command of the program did to logging, so that the next test hears it all."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def quicken(node: Node) -> None:
    """Have the node do in milliseconds what it does in minutes by default; these have no place in rabbitmq.conf."""
    settings = ", ".join(f"application:set_env(rabbit, {name}, {value})" for name, value in QUICKER.items())
    node.rabbitmqctl("eval", f"{settings}.")


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """The node that all tests share; a test that stops or changes it asks for `make_node` instead."""
    with running_node(tmp_path_factory.mktemp("node")) as shared:
        quicken(shared)
        yield shared


@pytest.fixture
def vhost(node: Node) -> Iterator[Broker]:
    """A fresh virtual host on the shared node."""
    with fresh_vhost(node, "test") as broker:
        yield broker


@contextmanager
def fresh_vhost(node: Node, kind: str) -> Iterator[Broker]:
    """Create a virtual host for the time of a block."""
    broker = Broker(node, f"{kind}-{next(_numbers)}")
    node.create_vhost(broker.vhost)
    yield broker
    node.management.delete_vhost(broker.vhost)


@pytest.fixture
def make_node(tmp_path: Path) -> Iterator[Callable[..., Node]]:
    """Make nodes of the test's own, not yet started: `make_node("name", extra_config="consumer_timeout = 10000")`."""
    made: list[Node] = []

    def make(name: str = "node", extra_config: str = "") -> Node:
        made.append(new_node(tmp_path / name, extra_config))
        return made[-1]

    yield make
    for own in made:
        throw_away(own)


def new_node(folder: Path, extra_config: str = "") -> Node:
    """Make a node, not yet started, that ends with the tests."""
    return Node(folder, extra_config=f"{TEST_CONFIG}\n{extra_config}", tied=True)


@contextmanager
def running_node(folder: Path) -> Iterator[Node]:
    """Run a node for the time of a block."""
    made = new_node(folder)
    try:
        yield made.start()
    finally:
        throw_away(made)


def throw_away(used: Node) -> None:
    """End a node at once and drop its data; its logs stay, to see what happened."""
    used.discard()
    shutil.rmtree(used.folder / "data", ignore_errors=True)


@pytest.fixture(scope="session")
def spare_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A second node, for tests that stop it or raise its alarms, and leave it running and calm."""
    with running_node(tmp_path_factory.mktemp("spare")) as spare:
        yield spare


@pytest.fixture
def spare_vhost(spare_node: Node) -> Iterator[Broker]:
    """A fresh virtual host on the second node."""
    with fresh_vhost(spare_node, "spare") as broker:
        yield broker
