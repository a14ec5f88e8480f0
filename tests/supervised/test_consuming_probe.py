"""A worker that is alive and does not consume any more notices by itself, within ten seconds, and consumes again."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from amqpworker import App
from amqpworker.broker.connection import QueueState
from amqpworker.broker.consumer_channel import ConsumerChannel, Subscription
from amqpworker.broker.consumer_check import resubscribes_silently
from tests.faults.test_consuming_faults import QUEUE, CountedTask, generation, make_anew
from tests.nodes import Node
from tests.proxy import Proxy
from tests.support import Broker, raw_channel, wait_until
from tests.workers import running

SOON = 10.0


@pytest.mark.parametrize(
    ("looks", "told"),
    [
        ([QueueState(0, 1)], ""),
        ([QueueState(0, 1)] * 9, ""),
        ([QueueState(5, 1)], ""),
        ([QueueState(5, 1)] * 2, "5 messages are ready, but none is delivered"),
        ([QueueState(0, 0)], ""),
        ([QueueState(0, 0)] * 2, "the broker has no consumer"),
        ([QueueState(None, 0)], "the queue does not exist"),
    ],
)
def test_the_brokers_list_of_consumers_shows_whether_a_queue_is_consumed(looks: list[QueueState], told: str) -> None:
    receiver: Any = SimpleNamespace(on_delivery=lambda _: None)
    channel = ConsumerChannel(Subscription(QUEUE, 10), receiver, lambda: None)
    assert [channel.check(look, False, False) for look in looks][-1] == told


def test_a_consumer_whose_queue_is_made_anew_is_noticed(
    vhost: Broker, app: App, caplog: pytest.LogCaptureFixture
) -> None:
    counted = CountedTask(app)
    with running(app, threads=2) as worker, raw_channel(vhost.url) as channel:
        before = generation(worker)
        make_anew(vhost, channel)
        counted.send(range(10))
        counted.wait_for(range(10), SOON)
        assert generation(worker) is not before
    assert "consumer_cancelled" in caplog.text
    assert vhost.count(QUEUE) == 0


def test_a_message_that_the_broker_gave_to_a_consumer_it_forgot_is_run_soon(vhost: Broker, app: App) -> None:
    counted = CountedTask(app)
    with running(app, threads=2), raw_channel(vhost.url) as channel:
        counted.send(range(1))
        counted.wait_for(range(1))
        make_anew(vhost, channel)
        # Fewer than are prefetched: none of them is left ready for a look to find.
        counted.send(range(1, 2))
        counted.wait_for(range(1, 2), SOON)


@pytest.mark.parametrize(("version", "does"), [((), True), ((3, 10), True), ((3, 13), True), ((4, 0), False)])
def test_only_brokers_before_4_0_subscribe_for_us(version: tuple[int, ...], does: bool) -> None:
    assert resubscribes_silently(version) is does


def test_a_worker_that_has_long_tasks_keeps_its_subscription(vhost: Broker, app: App) -> None:
    counted = CountedTask(app)
    counted.held = {0, 1}
    with running(app, threads=2, prefetch=2) as worker:
        counted.send(range(40))
        counted.wait_for(range(2))
        before = generation(worker)
        time.sleep(8)  # several looks that find ready messages, and nothing delivered
        assert generation(worker) is before
        counted.go.set()
        counted.wait_for(range(40))
    assert max(counted.runs.values()) == 1


def test_a_connection_of_which_the_other_half_is_lost_is_given_up(
    vhost: Broker, make_app: Callable[..., App], caplog: pytest.LogCaptureFixture
) -> None:
    with Proxy(vhost.url) as proxy:
        app = make_app(url=proxy.url, heartbeat=300)
        counted = CountedTask(app)
        with running(app, threads=2) as worker:
            before = generation(worker)
            proxy.swallow("to_client")
            wait_until(lambda: "broker_unresponsive" in caplog.text, SOON, "that it is noticed")
            proxy.heal()
            wait_until(lambda: generation(worker) is not before and worker.process.consumer.consuming, 20)
            with App(vhost.url) as sender:
                sender.send_many(counted.task.message(n) for n in range(10))  # type: ignore[attr-defined]
            counted.wait_for(range(10))


def test_a_broker_that_is_frozen_is_noticed_and_consumed_from_again_when_it_thaws(
    spare_node: Node, make_app: Callable[..., App], caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app(url=spare_node.url(), heartbeat=300, connect_timeout=3.0)
    counted = CountedTask(app)
    with running(app, threads=2) as worker:
        counted.send(range(5))
        counted.wait_for(range(5))
        pid = spare_node.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            wait_until(lambda: "broker_unresponsive" in caplog.text, SOON, "that it is noticed")
        finally:
            os.kill(pid, signal.SIGCONT)
        wait_until(lambda: worker.process.consumer.consuming, 30, "the worker consumes again")
        wait_until(lambda: app.producer.publisher.connected, 30, "the publisher, too")
        counted.send(range(5, 10))
        counted.wait_for(range(5, 10))
