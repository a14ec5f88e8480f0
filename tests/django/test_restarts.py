"""Servers that restart: what Django has committed has run, and a connection to a database that was cut does not fail the next run."""

from __future__ import annotations

import itertools
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from subprocess import Popen

import httpx
import pytest
from django.db import connections

from amqpworker.testing.processes import free_ports
from tests.django.conftest import PROJECT, Site
from tests.django.test_backend import finished
from tests.programs import Program
from tests.support import wait_until

CLIENTS = 4
GUNICORN = "--worker-class gthread --workers 2 --threads 4 --timeout 120 --graceful-timeout 60"


@contextmanager
def database_restarted(site: Site) -> Iterator[None]:
    """Restart the database during a block; connections of this process are cut as well."""
    connections.close_all()
    site.database.stop()
    yield
    site.database.start()


def test_the_next_run_works_after_the_database_was_restarted_under_a_worker(site: Site, worker: Program) -> None:
    before = {finished(site.tasks.backend_process.enqueue()).return_value for _ in range(8)}
    assert finished(site.tasks.add_async.enqueue(1, 1)).return_value == 2
    with database_restarted(site):
        pass
    results = [finished(site.tasks.backend_process.enqueue()) for _ in range(8)]
    assert [result.status for result in results] == ["SUCCESSFUL"] * 8
    assert not before & {result.return_value for result in results}
    assert finished(site.tasks.add_async.enqueue(1, 2)).return_value == 3


class Orders:
    """Clients that order for the time of a block, one request after the other."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stop = threading.Event()
        self.accepted: set[int] = set()

    def wait_for(self, count: int, what: str) -> None:
        goal = len(self.accepted) + count
        wait_until(lambda: len(self.accepted) >= goal, 60, what)

    @contextmanager
    def sent(self) -> Iterator[None]:
        with ThreadPoolExecutor(CLIENTS) as pool:
            running = [pool.submit(self._order) for _ in range(CLIENTS)]
            try:
                yield
            finally:
                self._stop.set()
        for one in running:
            one.result()

    def _order(self) -> None:
        for number in itertools.count():
            if self._stop.wait(0.02):
                return
            try:
                answer = httpx.get(self._url + ("?fail=1" if number % 5 == 0 else ""), timeout=60)
            except httpx.TransportError:
                continue  # the server replaces its processes
            if answer.status_code == 200 and number % 5:
                self.accepted.add(int(answer.text))


@contextmanager
def gunicorn(site: Site) -> Iterator[tuple[Program, str]]:
    (port,) = free_ports(1)
    log = site.folder / "gunicorn.log"
    command = [sys.executable, "-m", "gunicorn", "config.wsgi", "--bind", f"127.0.0.1:{port}", *GUNICORN.split()]
    environ = {**site.environ, "AMQPWORKER_SEND_TIMEOUT": "45"}
    with log.open("wb") as out, Popen(command, env=environ, cwd=PROJECT, stdout=out, stderr=out) as process:
        url = f"http://127.0.0.1:{port}/order"
        try:
            wait_until(lambda: "Booting worker" in log.read_text(), 60, "gunicorn serves")
            yield Program(process, log), url
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0, log.read_text()
        finally:
            if process.poll() is None:
                process.kill()


@pytest.mark.timeout(240)
def test_what_gunicorn_has_committed_has_run_through_a_reload_and_restarts_of_broker_and_database(
    site: Site, worker: Program
) -> None:
    with gunicorn(site) as (server, url):
        orders = Orders(url)
        with orders.sent():
            orders.wait_for(20, "orders are accepted")
            server.signal(signal.SIGHUP)
            orders.wait_for(20, "orders are accepted during the reload")
            site.node.stop()
            site.node.start()
            orders.wait_for(20, "orders are accepted after the restart of the broker")
            with database_restarted(site):
                pass
            orders.wait_for(20, "orders are accepted after the restart of the database")
    committed = site.models.Order.objects.filter(pk__gte=min(orders.accepted))
    wait_until(lambda: not committed.filter(is_done=False).exists(), 60, "each committed order is done")
    assert orders.accepted <= set(committed.values_list("pk", flat=True))
    assert "send_after_commit_failed" not in server.log
