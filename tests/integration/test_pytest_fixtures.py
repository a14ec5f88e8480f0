"""The fixtures of the pytest plugin on a broker: a virtual host for each test, workers of both kinds, in several processes."""

from __future__ import annotations

from pathlib import Path

from tests.nodes import Node
from tests.plugin import run_pytest

SHOP = """
import logging
import os

from amqpworker import App, Settings, current

app = App("amqp://127.0.0.1:1/", results="sqlite:///never-made.db", settings=Settings(declare=False))
log = logging.getLogger("shop")


@app.task(queue="numbers")
def double(number: int) -> int:
    log.warning("doubles %s", number)
    return 2 * number


@app.task(queue="numbers", isolated=True)
def process() -> int:
    return double.call(os.getpid()) // 2


@app.task(queue="numbers")
def worker_process() -> int:
    return os.getpid()
"""

TESTS = """
import os
from pathlib import Path

import pytest

from amqpworker import ConfigError
from amqpworker.testing import wait_until
from shop import app, double, process, worker_process

VHOSTS = Path("vhosts")


@pytest.fixture(autouse=True)
def vhost(amqp_app):
    with VHOSTS.open("a") as file:
        file.write(app.url.rpartition("/")[2] + "\\n")


def test_in_this_process(amqp_worker, caplog):
    amqp_worker()
    assert worker_process.call() == os.getpid()
    assert double.send(21).result() == 42
    assert "doubles 21" in caplog.text
    assert process.call() != os.getpid()
    assert not Path("never-made.db").exists()


def test_in_processes(amqp_worker, caplog):
    amqp_worker(processes=1, threads=2)
    assert worker_process.call() != os.getpid()
    assert double.send(21).result() == 42
    wait_until(lambda: "doubles 21" in caplog.text)
    assert process.call() != os.getpid()


def test_what_is_not_valid_is_refused(amqp_worker):
    double.send(1)
    for given in ({"processes": -1}, {"threads": 0}, {"queues": ["nmbers"]}):
        with pytest.raises(ConfigError, match="numbers|must be a whole number from"):
            amqp_worker(**given)
"""


def test_the_fixtures_work_in_several_processes_of_pytest(node: Node, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "test_shop.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\namqpworker_app = shop:app\n")
    done = run_pytest(tmp_path, "-q", "-n", "2", AMQPWORKER_URL=node.url(), AMQPWORKER_MANAGEMENT=node.management_url)
    assert "3 passed" in done.stdout, done.stdout + done.stderr
    vhosts = (tmp_path / "vhosts").read_text().split()
    assert len(vhosts) == len(set(vhosts)) == 3
    left = {vhost["name"] for vhost in node.management.request("GET", "vhosts")}
    assert not left & set(vhosts)
