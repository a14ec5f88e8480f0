"""Declaring what a message needs, on a connection that ends meanwhile."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from amqpworker import App, Settings
from amqpworker.broker.declarer import OnDeclared
from amqpworker.broker.pending_publish import PendingPublish
from amqpworker.errors import AmqpWorkerError
from amqpworker.model.message import Properties, Publication
from amqpworker.routing.queues import Requirement
from tests.nodes import Node
from tests.support import Broker, raw_channel, wait_until


def test_a_message_whose_queue_was_being_declared_when_the_broker_died_is_sent_once_it_is_back(
    spare_node: Node,
) -> None:
    app = App(spare_node.url(), settings=Settings(send_timeout=60, declare=True))
    first, second = app.queue("first"), app.queue("second")

    @app.task(name="nothing", queue=first)
    def nothing() -> None: ...

    with app, ThreadPoolExecutor() as pool:
        nothing.send()
        spare_node.save_queues()
        os.kill(spare_node.pid, signal.SIGSTOP)
        sending = pool.submit(nothing.options(queue=second).send)
        publisher: Any = app.producer.publisher
        wait_until(lambda: publisher.sends._parked, what="a message that waits for its queue")
        spare_node.kill()
        spare_node.start()
        assert sending.result(timeout=60).id
        assert Broker(spare_node, "/").count(second) == 1


def test_messages_that_wait_for_their_queue_stay_in_order_before_newer_ones(
    make_app: Callable[..., App], vhost: Broker
) -> None:
    app = make_app()
    first, second = app.queue("first"), app.queue("second")
    publisher: Any = app.producer.publisher

    def publish(queue: str, body: bytes) -> PendingPublish:
        publication = Publication("amqpworker.tasks", queue, Properties(delivery_mode=2), body)
        pending: PendingPublish = publisher.sends.publish(publication, app.plan.requirements(queue, delayed=False))
        return pending

    publish(first, b"").wait()
    declarer = publisher.session.declarer
    ensure = declarer.ensure
    newer: list[PendingPublish] = []

    def ensure_and_publish(requirement: Requirement, on_declared: OnDeclared) -> None:
        """Publish another message at the moment when the queue is declared."""

        def on_both(error: AmqpWorkerError | None) -> None:
            newer.append(publish(second, b"3"))
            on_declared(error)

        ensure(requirement, on_both)

    declarer.ensure = ensure_and_publish
    for pending in [publish(second, body) for body in (b"1", b"2")]:
        pending.wait()
    for pending in newer:
        pending.wait()
    with raw_channel(vhost.url) as channel:
        arrived = [channel.basic_get(second, auto_ack=True)[2] for _ in range(2 + len(newer))]
    assert arrived == [b"1", b"2", *[b"3"] * len(newer)]
