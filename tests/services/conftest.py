"""
What the example services need: a broker that is restarted, a worker, and the ledger: the file of ids of tasks that have run.

Plain pytest runs the short form; SERVICE_REQUESTS makes it longer (`make long`).
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli import environment, started
from tests.conftest import quicken, running_node
from tests.docs import ROOT
from tests.nodes import Node
from tests.programs import Program, whole_lines
from tests.support import Broker, wait_until

LONG = "SERVICE_REQUESTS" in os.environ
REQUESTS = int(os.environ.get("SERVICE_REQUESTS", "400"))
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def own_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node that the tests may restart."""
    with running_node(tmp_path_factory.mktemp("own")) as own:
        quicken(own)
        yield own


@dataclass(frozen=True)
class Backend:
    """A virtual host, and a worker that runs the tasks of the services in it."""

    broker: Broker
    worker: Program
    ledger: Path

    def wait_for_runs(self, ids: set[str]) -> None:
        """Wait until the tasks with these ids have run."""

        def missing() -> set[str]:
            return ids.difference(whole_lines(self.ledger))

        wait_until(lambda: not missing(), 60, "each task that was accepted has run")


@pytest.fixture
def broker(own_node: Node) -> Broker:
    """A fresh virtual host on the node that the tests may restart, which keeps it (see `delete_vhost`)."""
    made = Broker(own_node, f"services-{next(_numbers)}")
    own_node.create_vhost(made.vhost)
    return made


@pytest.fixture
def backend(broker: Broker, tmp_path: Path) -> Iterator[Backend]:
    """A worker, which must end in good order."""
    ledger = tmp_path / "ledger"
    variables = environment(broker.url, SERVICES_LEDGER=str(ledger))
    command = ("worker", "tests.services.worker:app", "-p", "1", "-t", "8", "--log-json")
    with (
        (tmp_path / "worker.log").open("w") as log,
        started(ROOT, variables, *command, stdout=log, stderr=log) as process,
    ):
        worker = Program(process, tmp_path / "worker.log")
        worker.wait_for("queue_consuming", 2, 60)
        yield Backend(broker, worker, ledger)
        worker.signal(signal.SIGTERM)
        assert worker.end(60) == 0, worker.log
