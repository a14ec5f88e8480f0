"""
Tasks that take longer than the broker waits for an acknowledgement: doubles at worst, no lost message, no dead worker.

Before RabbitMQ 4.3 the broker closes the channel with every delivery on it, from then on it ends the subscription.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import new_node, throw_away
from tests.nodes import Node
from tests.pools import Pool, pool
from tests.support import Broker, wait_until

# The broker looks each second.
TIMEOUT = 6
TASKS = """
@app.task(name="shop.first_long", queue="work", retry=None)
def first_long(mark: str) -> None:
    note(f"begin {mark}")
    if not (HERE / mark).exists():
        (HERE / mark).touch()
        end = time.monotonic() + 60
        while time.monotonic() < end and not (HERE / "go").exists():
            time.sleep(0.01)
    note(f"end {mark}")

@app.task(name="shop.first_takes", queue="work", retry=None)
def first_takes(seconds: float, mark: str) -> None:
    note(f"begin {mark}")
    if not (HERE / mark).exists():
        (HERE / mark).touch()
        time.sleep(seconds)
    note(f"end {mark}")

@app.task(name="shop.limited", queue="work", retry=[0], time_limit=2)
def limited(mark: str) -> None:
    note(f"begin {mark}")
    if not (HERE / mark).exists():
        (HERE / mark).touch()
        while True:
            time.sleep(0.01)
    note(f"end {mark}")
"""


NEIGHBOURS = [f"n{number}" for number in range(5)]


@pytest.fixture(scope="module")
def impatient_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node that waits only for a moment, and looks each second."""
    node = new_node(tmp_path_factory.mktemp("impatient"), f"consumer_timeout = {TIMEOUT}000")
    node.start()
    node.rabbitmqctl("eval", "application:set_env(rabbit, channel_tick_interval, 1000).")
    yield node
    throw_away(node)


@pytest.fixture
def impatient(impatient_node: Node, request: pytest.FixtureRequest) -> Iterator[Broker]:
    broker = Broker(impatient_node, request.node.name[:60])
    impatient_node.create_vhost(broker.vhost)
    yield broker
    impatient_node.management.delete_vhost(broker.vhost)


def runs(workers: Pool, what: str) -> list[str]:
    """Return which tasks have begun, or ended, in this order."""
    return [line.split()[1] for line in workers.ledger() if line.startswith(what)]


def send(workers: Pool, task: str) -> None:
    """Send a task, and once it runs its neighbours."""
    workers.send(task, mark="a")
    wait_until(lambda: runs(workers, "begin") == ["a"], what="it runs")
    for mark in NEIGHBOURS:
        workers.send("slow", seconds=0, mark=mark)


def too_late(workers: Pool) -> bool:
    """Return whether the broker has reported that an acknowledgement was too late."""
    closed = [line["reason"] for line in workers.events("queue_not_consumed")]
    return any("acknowledgement on channel" in one for one in closed) or bool(workers.events("consumer_cancelled"))


def check_all_is_well(workers: Pool, processes: int, may_come_again: int = 0) -> None:
    """Wait until everything is done, and see that no process died."""
    assert workers.broker is not None
    wait_until(lambda: set(runs(workers, "end")) == {"a", *NEIGHBOURS}, 40, "the end of all")
    workers.signal(signal.SIGTERM)
    assert workers.end() == 0
    assert workers.broker.count("work") <= may_come_again
    assert len(workers.events("process_started")) == processes
    assert workers.events("process_died") == []


def test_a_task_that_takes_longer_runs_twice_and_those_that_waited_behind_it_once(
    tmp_path: Path, impatient: Broker
) -> None:
    with pool(tmp_path, impatient.url, "-p", "1", "-t", "1", broker=impatient, more=TASKS) as workers:
        workers.wait_for("pool_started")
        send(workers, "first_long")
        wait_until(lambda: too_late(workers), 40, "the broker delivers the message to another process")
        (late,) = workers.wait_for("ack_timeout_passed")
        assert (late["level"], late["task"], late["queue"]) == ("warning", "shop.first_long", "work")
        assert late["id"]
        assert "acknowledgement" in late["reason"]
        assert late["seconds"] > TIMEOUT - 1, "the broker counts from the delivery on"
        (tmp_path / "go").touch()
        wait_until(lambda: runs(workers, "end").count("a") == 2, 40, "its second run")
        check_all_is_well(workers, 1)
        assert sorted(runs(workers, "begin")) == ["a", "a", *NEIGHBOURS]


def test_what_waits_behind_it_is_requeued_in_time_if_the_ack_timeout_is_configured(
    tmp_path: Path, impatient: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMQPWORKER_ACK_TIMEOUT", str(TIMEOUT))
    options = ("-p", "2", "-t", "1", "--prefetch", "8")
    with pool(tmp_path, impatient.url, *options, broker=impatient, more=TASKS) as workers:
        workers.wait_for("process_started", 2)
        send(workers, "first_long")
        assert workers.wait_for("deliveries_requeued")[0]["waited"] == TIMEOUT / 2
        wait_until(lambda: set(runs(workers, "end")) >= set(NEIGHBOURS), 40, "the end of those that waited")
        (tmp_path / "go").touch()
        # The long one may have been delivered to another process this moment.
        check_all_is_well(workers, 2, may_come_again=1)
        assert sorted(runs(workers, "end"))[-len(NEIGHBOURS) :] == NEIGHBOURS, "once each"


def test_a_task_with_a_time_limit_below_it_never_meets_it(tmp_path: Path, impatient: Broker) -> None:
    with pool(tmp_path, impatient.url, "-p", "1", "-t", "1", broker=impatient, more=TASKS) as workers:
        workers.wait_for("pool_started")
        send(workers, "limited")
        check_all_is_well(workers, 1)
        assert sorted(runs(workers, "begin")) == ["a", "a", *NEIGHBOURS]
        assert not too_late(workers)


def test_an_app_gets_the_time_that_it_asks_for_where_the_broker_lets_consumers_choose(
    tmp_path: Path, impatient: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMQPWORKER_ACK_TIMEOUT", "3600")
    version = impatient.management.overview()["rabbitmq_version"]
    expected = ["a"] if tuple(map(int, version.split(".")[:2])) >= (4, 3) else ["a", "a"]
    with pool(tmp_path, impatient.url, "-p", "1", "-t", "1", broker=impatient, more=TASKS) as workers:
        workers.wait_for("pool_started")
        workers.send("first_takes", seconds=TIMEOUT * 1.5, mark="a")
        wait_until(lambda: runs(workers, "end") == expected, 40, f"the end of {len(expected)} runs")
        impatient.wait_for_count("work", 0)
        workers.signal(signal.SIGTERM)
        assert workers.end() == 0
        assert runs(workers, "begin") == expected
        assert too_late(workers) is (expected != ["a"])
