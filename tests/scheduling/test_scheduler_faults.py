"""Schedulers while the broker, the network and the queues of tasks fail: no tick is missed, and others are not held up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import new_node, throw_away
from tests.docs import ROOT, table
from tests.long.faults import frozen
from tests.nodes import Node
from tests.proxy import Direction, Proxy
from tests.schedulers import PATIENCE, SECOND, TOKENS, Ticks, now, schedulers, watched
from tests.support import Broker, raw_channel, wait_until

pytestmark = pytest.mark.timeout(180)

ELSEWHERE = """
@app.task(name="shop.other", queue="other", retry=None)
def other() -> None: ...

other.schedule("other", every=1)()
"""
UNDECLARED = "settings=Settings(declare=False)"
SELDOM = """
tick.schedule("seldom", cron="0 0 29 2 *")(0)
"""
WITHOUT_CONFIRMS = 7 * SECOND
"""Longer than a leader waits for confirms."""


def wait_for_clock(until: int) -> None:
    """Wait until this time."""
    wait_until(lambda: now() >= until, PATIENCE, "a time")


@pytest.fixture
def spare(spare_node: Node, request: pytest.FixtureRequest) -> Broker:
    """A fresh virtual host on the node that may be restarted, which keeps it (see `delete_vhost`)."""
    broker = Broker(spare_node, request.node.name[:60])
    spare_node.create_vhost(broker.vhost)
    return broker


# ---- the connection ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["to_broker", "to_client"])
def test_another_leads_if_one_direction_of_the_connection_is_dead(
    tmp_path: Path, vhost: Broker, direction: Direction
) -> None:
    with Proxy(vhost.url) as proxy, watched(tmp_path, vhost.url, proxy.url) as both:
        proxy.swallow(direction)
        assert both.schedulers.leader(other_than=both.leader) is both.standby
        both.check()
        both.leader.wait_for("scheduler_lost_leadership", timeout=PATIENCE)
        proxy.heal()
        proxy.reset()
        both.leader.wait_for("scheduler_standby", timeout=PATIENCE)
        both.check()


def test_heartbeats_of_schedulers_are_frequent_although_they_are_set_to_be_rare(tmp_path: Path, vhost: Broker) -> None:
    with watched(tmp_path, vhost.url, heartbeat=60):

        def heartbeats() -> list[int]:
            return [one["timeout"] for one in vhost.management.connections(vhost.vhost) if "timeout" in one]

        # The two schedulers, and the consumer of the test.
        wait_until(lambda: sorted(heartbeats()) == [5, 5, 60], PATIENCE, "three connections")


def test_nothing_is_missed_when_the_broker_is_killed_and_comes_back(tmp_path: Path, spare: Broker) -> None:
    with watched(tmp_path, spare.url) as both:
        spare.node.save_queues()
        spare.node.kill()
        both.leader.wait_for("scheduler_lost_leadership")
        spare.node.start()
        both.check()


def test_nothing_is_missed_when_the_broker_is_frozen(tmp_path: Path, spare: Broker) -> None:
    with watched(tmp_path, spare.url) as both:
        with frozen(spare.node.pid):
            both.leader.wait_for("scheduler_lost_leadership", timeout=PATIENCE)
        both.check()


def test_a_leader_keeps_the_token_while_the_broker_has_an_alarm_and_its_ticks_follow(
    tmp_path: Path, spare: Broker
) -> None:
    with watched(tmp_path, spare.url) as both:
        with spare.node.alarm():
            wait_for_clock(now() + WITHOUT_CONFIRMS)
        both.check()
        assert both.leader.leads
        assert both.leader.events("scheduler_lost_leadership") == both.standby.events("scheduler_leading") == []


# ---- the queues of tasks -------------------------------------------------------------------------------------------


def test_a_queue_that_is_gone_holds_up_no_other_schedule_and_its_ticks_follow(tmp_path: Path, vhost: Broker) -> None:
    with raw_channel(vhost.url) as channel:
        channel.exchange_declare("amqpworker.tasks", "direct", durable=True)
        channel.exchange_declare("amqpworker.schedule", "direct", durable=True)
    vhost.bind_queue("ticks")
    vhost.declare_queue(TOKENS, x_single_active_consumer=True)
    with raw_channel(vhost.url) as channel:
        channel.queue_bind(TOKENS, "amqpworker.schedule", "main")
    with watched(tmp_path, vhost.url, app=UNDECLARED, more=ELSEWHERE) as both:
        (refused, *_) = both.leader.wait_for("ticks_refused")
        assert refused["schedules"] == ["other"]
        both.check()
        vhost.bind_queue("other")
        with Ticks(vhost.url, "other") as others:
            others.wait_for_more(1)
            since = min(tick.nominal for tick in others.arrived())
            arrived = [tick.nominal for tick in others.arrived()]
        assert arrived == list(range(since, arrived[-1] + 1, SECOND))
        assert since <= both.since + SECOND
        both.check()


def test_a_queue_that_refuses_messages_holds_up_no_other_schedule(tmp_path: Path, vhost: Broker) -> None:
    with schedulers(tmp_path, vhost.url, count=0, more=ELSEWHERE) as declaring:
        declaring.start().wait_for("scheduler_leading", timeout=PATIENCE)
        wait_until(lambda: vhost.count("other") > 0, PATIENCE, "a tick")
    vhost.management.set_policy(vhost.vhost, "full", "^other$", {"max-length": 1, "overflow": "reject-publish"})
    with watched(tmp_path, vhost.url, more=ELSEWHERE) as both:
        both.leader.wait_for("ticks_refused", timeout=PATIENCE)
        both.check()
        vhost.management.set_policy(vhost.vhost, "full", "^other$", {"max-length": 1000})
        with Ticks(vhost.url, "other") as others:
            others.wait_for_more(1)
            times = [tick.nominal for tick in others.arrived()]
        assert times == list(range(times[0], times[-1] + 1, SECOND))
        assert both.leader.events("scheduler_lost_leadership") == []


def test_exchanges_that_are_deleted_are_declared_again_and_nothing_is_missed(tmp_path: Path, vhost: Broker) -> None:
    with watched(tmp_path, vhost.url) as both:
        with raw_channel(vhost.url) as channel:
            channel.exchange_delete("amqpworker.tasks")
            channel.exchange_delete("amqpworker.schedule")
        both.check()
        wait_until(
            lambda: (
                {"amqpworker.tasks", "amqpworker.schedule"}
                <= {one["name"] for one in vhost.management.exchanges(vhost.vhost)}
            ),
            PATIENCE,
            "both exchanges",
        )
        both.schedulers.kill(both.schedulers.leader())
        both.schedulers.leader()
        both.check()


# ---- the ack timeout, and permissions ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A node whose ack timeout is seconds, and that looks each second."""
    node = new_node(tmp_path_factory.mktemp("impatient"), "consumer_timeout = 3000")
    try:
        node.start()
        node.rabbitmqctl("eval", "application:set_env(rabbit, channel_tick_interval, 1000).")
        yield Broker(node, "/")
    finally:
        throw_away(node)


def test_a_leader_renews_its_token_before_the_ack_timeout_and_leads_again_after_it(
    tmp_path: Path, impatient: Broker
) -> None:
    (tmp_path / "often").mkdir()
    (tmp_path / "seldom").mkdir()
    with watched(tmp_path / "often", impatient.url) as often:
        wait_for_clock(now() + 5 * SECOND)
        often.check()
        assert often.leader.events("scheduler_lost_leadership") == []
    with schedulers(tmp_path / "seldom", impatient.url, count=0, more=SELDOM) as seldom:
        one = seldom.start()
        one.wait_for("scheduler_lost_leadership", timeout=PATIENCE)
        one.wait_for("scheduler_leading", 2, timeout=PATIENCE)
        assert one.events("token_missing") == []


def test_a_user_with_the_listed_permissions_leads_and_sends_without_a_declaration(
    tmp_path: Path, vhost: Broker
) -> None:
    page = (ROOT / "docs/topology.md").read_text().replace(r"\|", "¦")
    rows = table(page, "| user | configure | write | read |")
    (listed,) = [row[1:] for row in rows if row[0] == "scheduler `main`"]
    configure, write, read = (cell.strip("`").replace("¦", "|") for cell in listed)
    with watched(tmp_path, vhost.url) as declaring:
        declaring.check()
    vhost.management.create_user("least", "sesame-47")
    vhost.management.set_permissions(vhost.vhost, "least", configure, write, read)
    url = vhost.node.url(vhost.vhost, "least", "sesame-47")
    with schedulers(tmp_path, url, app=UNDECLARED) as running, Ticks(vhost.url) as arriving:
        leader, standby = running.start(), running.start()
        running.leader()
        arriving.wait_for_more(3, seconds=1)
        wait_until(lambda: leader.events("scheduler_standby") or standby.events("scheduler_standby"), PATIENCE)
        running.kill(running.leader())
        running.leader()
        arriving.wait_for_more(3, seconds=1)
    vhost.management.delete_user("least")
