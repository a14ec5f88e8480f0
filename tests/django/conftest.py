"""What the tests of Django need: a broker, a PostgreSQL, the project in ./project, and its worker, started by `manage.py`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from tests.cli import environment
from tests.conftest import fresh_vhost, quicken, running_node
from tests.docs import ROOT
from tests.nodes import Node
from tests.programs import Program
from tests.stores.postgres_server import PostgresServer

PROJECT = Path(__file__).parent / "project"


@pytest.fixture(scope="session")
def own_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node that the tests may restart."""
    with running_node(tmp_path_factory.mktemp("own")) as own:
        quicken(own)
        yield own


@dataclass(frozen=True)
class Site:
    """The project, set up in this process as well; `environ` is what other processes of it need."""

    node: Node
    database: PostgresServer
    environ: dict[str, str]
    tasks: ModuleType
    models: ModuleType
    folder: Path

    @contextmanager
    def managed(self, *arguments: str, name: str = "worker") -> Iterator[Program]:
        """Run a command of `manage.py` for the time of a block, in another folder than the project's."""
        log = self.folder / f"{name}.log"
        command = [sys.executable, str(PROJECT / "manage.py"), *arguments]
        with (
            log.open("a") as out,
            subprocess.Popen(command, env=self.environ, cwd=self.folder, stdout=out, stderr=out) as process,
        ):
            try:
                yield Program(process, log)
            finally:
                process.poll() is None and process.kill()  # type: ignore[func-returns-value]

    @contextmanager
    def working(self) -> Iterator[Program]:
        """Run a worker, which must end in good order."""
        with self.managed("amqpworker", "worker", "-p", "1", "-t", "2", "--log-json") as worker:
            worker.wait_for("queue_consuming", 2, 60)
            yield worker
            worker.signal(signal.SIGTERM)
            assert worker.end(60) == 0, worker.log


@pytest.fixture(scope="session")
def site(own_node: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The project with its tables; Django can be set up once per process only."""
    database = PostgresServer()
    try:
        yield from _site(own_node, database, tmp_path_factory.mktemp("site"))
    finally:
        database.discard()


def _site(own_node: Node, database: PostgresServer, folder: Path) -> Iterator[Site]:
    database.start()
    with fresh_vhost(own_node, "django") as broker:
        variables = {
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "SHOP_BROKER": broker.url,
            "SHOP_DATABASE_PORT": str(database.port),
            "SHOP_RESULTS": database.url(),
        }
        os.environ.update(variables)
        sys.path.insert(0, str(PROJECT))
        import django
        from django.core.management import call_command

        django.setup()
        call_command("migrate", run_syncdb=True, verbosity=0)
        from shop import models, tasks

        environ = environment(PYTHONPATH=str(ROOT), **variables)
        yield Site(own_node, database, environ, tasks, models, folder)
        from django.db import connections

        from amqpworker.contrib.django.backend import AmqpWorkerBackend
        from amqpworker.contrib.django.tasks_api import task_backends

        for backend in task_backends.all():
            if isinstance(backend, AmqpWorkerBackend):
                backend.app.close()
        connections.close_all()


@pytest.fixture(scope="session")
def worker(site: Site) -> Iterator[Program]:
    """A worker of the project's backend `default`."""
    with site.working() as running:
        yield running
