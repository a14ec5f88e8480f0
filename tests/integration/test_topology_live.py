"""What is declared, by whom and when; and the delay ladder on a real broker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from amqpworker import App, InvalidArguments, Message, Unroutable
from amqpworker.routing.topology import base, ladder, work_queue
from tests.integration.tasks import QUEUE, echo_of, messages
from tests.proxy import Proxy
from tests.support import Broker, milliseconds, raw_channel, wait_until

MakeApp = Callable[..., App]

WORK = {"work", "work.dead", "amqpworker.parked"}


# ---- declaring -----------------------------------------------------------------------------------------------------


def test_the_first_message_makes_the_topology_of_its_queue_and_no_other(app: App, vhost: Broker) -> None:
    app.queue("another")
    echo_of(app).send("x")
    assert set(vhost.queues()) == WORK
    wanted = base("amqpworker") + work_queue("amqpworker", QUEUE)
    exchanges = {one["name"]: one for one in vhost.management.exchanges(vhost.vhost)}
    for exchange in wanted.exchanges:
        assert exchanges[exchange.name]["type"] == exchange.type
        assert exchanges[exchange.name]["durable"]
        assert exchanges[exchange.name]["arguments"] == dict(exchange.arguments)
    queues = {one["name"]: one for one in vhost.management.queues(vhost.vhost)}
    for queue in wanted.queues:
        assert queues[queue.name]["durable"]
        assert queues[queue.name]["arguments"] == dict(queue.arguments)
    bindings = {
        (one["source"], one["destination"], one["routing_key"]) for one in vhost.management.bindings(vhost.vhost)
    }
    for binding in wanted.bindings:
        assert (binding.source, binding.queue, binding.routing_key) in bindings


def test_the_first_delay_makes_the_ladder(app: App, vhost: Broker) -> None:
    echo = echo_of(app)
    echo.send("x")
    assert set(vhost.queues()) == WORK
    echo.options(delay=3600).send("x")
    assert set(vhost.queues()) == WORK | {one.name for one in ladder("amqpworker").queues}


def test_a_queue_that_only_the_app_names_is_declared_when_it_is_used(app: App, vhost: Broker) -> None:
    echo = echo_of(app)
    echo.options(queue=app.queue("named")).send("x")
    assert vhost.count("named") == 1
    assert "work" not in vhost.queues()


def test_a_namespace_keeps_apart_what_two_systems_declare(vhost: Broker) -> None:
    with App(vhost.url, namespace="acme") as app:
        echo_of(app).options(delay=0.2).send("x")
        vhost.wait_for_count(QUEUE, 1)
    names = {one["name"] for one in vhost.management.exchanges(vhost.vhost) if one["name"]}
    assert not [one for one in names if one.startswith("amqpworker")]
    assert "acme.tasks" in names


def test_without_declare_nothing_is_declared(make_app: MakeApp, vhost: Broker) -> None:
    app = make_app(declare=False)
    echo = echo_of(app)
    for task in (echo, echo.options(delay=1)):
        with pytest.raises(Unroutable):
            task.send("x")
    assert vhost.queues() == []
    assert not [one for one in vhost.management.exchanges(vhost.vhost) if one["name"].startswith("amqpworker")]


def test_a_topology_is_declared_once_for_a_connection(make_app: MakeApp, vhost: Broker) -> None:
    with Proxy(vhost.url) as proxy:
        app = make_app(proxy.url)
        echo = echo_of(app)
        echo.send("x")
        echo.send("x")
        before = proxy.passed["to_client"]
        echo.send("x")
        confirm = proxy.passed["to_client"] - before
        assert 0 < confirm <= 21  # one frame with the confirm, and nothing else


def test_many_threads_at_once_declare_one_topology(app: App, vhost: Broker) -> None:
    tasks = [app.remote(name=f"test.{number}", queue=f"q{number % 4}")(lambda: None) for number in range(20)]
    threads = [threading.Thread(target=task.send) for task in tasks for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert [vhost.count(f"q{number}") for number in range(4)] == [15] * 4


def test_a_queue_that_was_deleted_is_not_routed_once_and_then_declared_anew(app: App, vhost: Broker) -> None:
    echo = echo_of(app)
    echo.send("x")
    vhost.delete_queue(QUEUE)
    with pytest.raises(Unroutable) as caught:
        echo.send("x")
    assert caught.value.message is not None
    app.send(caught.value.message)
    assert vhost.count(QUEUE) == 1


def test_a_new_connection_declares_again(app: App, vhost: Broker) -> None:
    echo = echo_of(app)
    echo.send("x")
    vhost.delete_queue(QUEUE)
    app.close()
    echo.send("x")
    assert vhost.count(QUEUE) == 1


# ---- delays --------------------------------------------------------------------------------------------------------


def arrivals(vhost: Broker, count: int, timeout: float) -> Iterator[tuple[str, float]]:
    """Yield id and time of the messages that come to the queue, as they come."""
    with raw_channel(vhost.url) as channel:
        for method, properties, _ in channel.consume(QUEUE, auto_ack=True, inactivity_timeout=timeout):
            if method is None:
                raise AssertionError(f"{count} messages are missing")
            yield properties.message_id, time.time()
            count -= 1
            if count == 0:
                return


def test_a_delayed_message_is_never_early_and_hardly_late(app: App, vhost: Broker) -> None:
    delays = [0.0, 0.01, 0.125, 0.126, 0.3, 0.5, 0.875, 1.0, 1.7, 2.2, 3.0]
    echo = echo_of(app)
    echo.options(delay=0.01).send("makes the ladder")
    assert [one for one, _ in arrivals(vhost, 1, 5)]
    due: dict[str, float] = {}
    for delay in delays:
        before = time.time()
        due[echo.options(delay=delay).send("x").id] = before + delay
    for task_id, arrived in arrivals(vhost, len(delays), 5):
        assert due[task_id] <= arrived <= due[task_id] + 0.125 + 0.5
    assert len(due) == len(delays)


def test_a_delayed_message_carries_its_eta_and_its_waits(app: App, vhost: Broker) -> None:
    before = int(time.time() * 1000)
    echo_of(app).options(delay=timedelta(seconds=0.625)).send("x")
    after = int(time.time() * 1000)
    message = vhost.wait_for_message(QUEUE)
    assert message.exchange == "amqpworker.due"
    assert message.routing_key == QUEUE
    assert before + 625 <= milliseconds(message.headers["aw-eta"]) <= after + 625
    assert {name for name in message.headers if name.startswith("aw-wait")} == {"aw-wait-02", "aw-wait-00"}
    assert message.properties.expiration is None
    assert message.properties.delivery_mode == 2


def test_a_message_may_be_due_at_a_moment(app: App, vhost: Broker) -> None:
    echo = echo_of(app)
    echo.options(delay=0.01).send("makes the ladder")
    assert [one for one, _ in arrivals(vhost, 1, 5)]
    at = datetime.now(UTC) + timedelta(seconds=0.6)
    sent = echo.options(at=at).send("x")
    past = echo.options(at=datetime.now(UTC) - timedelta(days=400)).send("x")
    found = dict(arrivals(vhost, 2, 5))
    assert list(found) == [past.id, sent.id]
    assert at.timestamp() <= found[sent.id] <= at.timestamp() + 0.7


def test_the_time_of_a_delay_counts_from_the_sending(app: App, vhost: Broker) -> None:
    echo = echo_of(app)
    echo.send("makes the topology")
    vhost.get(QUEUE)
    message = echo.options(delay=0.5).message("x")
    threading.Event().wait(0.6)
    begin = time.time()
    app.send(message)
    ((_, arrived),) = arrivals(vhost, 1, 5)
    assert arrived >= begin + 0.5


def test_a_short_delay_is_not_held_up_by_long_ones(app: App, vhost: Broker) -> None:
    echo = echo_of(app)
    app.send_many(echo.options(delay=3600 + number).message("later") for number in range(500))
    begin = time.time()
    soon = echo.options(delay=0.25).send("soon")
    ((task_id, arrived),) = arrivals(vhost, 1, 5)
    assert task_id == soon.id
    assert arrived < begin + 1.0


def test_the_longest_delay_waits_in_the_highest_level(app: App, vhost: Broker) -> None:
    echo_of(app).options(delay=timedelta(days=365 * 8)).send("x")
    wait_until(lambda: vhost.count("amqpworker.delay.30") == 1)


@pytest.mark.parametrize(
    "options",
    [
        {"delay": -1},
        {"delay": -0.001},
        {"delay": float("nan")},
        {"delay": float("inf")},
        {"delay": 10 * 365 * 86400},
        {"delay": True},
        {"delay": "5"},
        {"delay": timedelta(seconds=-1)},
        {"at": datetime(2030, 1, 1)},  # noqa: DTZ001 - naive is the point
        {"at": datetime(2200, 1, 1, tzinfo=UTC)},
        {"at": 5},
        {"at": datetime(2030, 1, 1, tzinfo=UTC), "delay": 5},
        {"expires": -1},
        {"expires": datetime(2030, 1, 1)},  # noqa: DTZ001
    ],
)
def test_a_time_that_cannot_be_is_refused_with_the_option_s_name(vhost: Broker, options: dict[str, object]) -> None:
    echo = echo_of(App(vhost.url))
    with pytest.raises(InvalidArguments, match=next(iter(options))):
        echo.options(**options)  # type: ignore[call-overload]
    assert vhost.queues() == []


def test_a_delayed_message_whose_queue_is_gone_when_it_falls_due_is_parked(app: App, vhost: Broker) -> None:
    sent = echo_of(app).options(delay=0.4).send("x")
    vhost.delete_queue(QUEUE)
    parked = vhost.wait_for_message("amqpworker.parked")
    assert parked.properties.message_id == sent.id
    assert parked.routing_key == QUEUE


def test_a_delayed_message_for_a_queue_that_never_was_is_parked(app: App, vhost: Broker) -> None:
    echo = echo_of(app)
    sent = echo.options(queue="nowhere", delay=0.2).send("x")
    assert vhost.wait_for_message("amqpworker.parked").properties.message_id == sent.id


def test_delayed_messages_are_confirmed_when_the_ladder_has_them(make_app: MakeApp, vhost: Broker) -> None:
    app = make_app()
    batch: list[Message] = list(messages(echo_of(app), 200))
    from dataclasses import replace

    sent = app.send_many(replace(one, delay=0.3) for one in batch)
    assert len(sent) == 200
    assert {task_id for task_id, _ in arrivals(vhost, 200, 5)} == {one.id for one in batch}
