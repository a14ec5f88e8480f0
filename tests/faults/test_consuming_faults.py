"""A worker whose channel, queue, connection or broker goes away: it consumes again, and nothing is lost."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from pika.adapters.blocking_connection import BlockingChannel

from amqpworker import App, Unroutable, current
from amqpworker.routing import topology
from amqpworker.testing.processes import free_ports
from tests.nodes import Node
from tests.proxy import Proxy
from tests.support import Broker, raw_channel, wait_until
from tests.workers import LocalWorker, running

QUEUE = "work"


class CountedTask:
    """Counts runs by number, and holds those that a test wants to be held."""

    def __init__(self, app: App, *, queue: str = QUEUE, name: str = "note") -> None:
        self.runs: Counter[int] = Counter()
        self.held: set[int] = set()
        self.go = threading.Event()
        self._lock = threading.Lock()

        @app.task(name=name, queue=queue)
        def note(n: int) -> None:
            with self._lock:
                self.runs[n] += 1
                hold = n in self.held and self.runs[n] == 1
            if hold:
                self.go.wait(60)

        self.task = note

    def send(self, numbers: range) -> None:
        self.task.app.send_many(self.task.message(n) for n in numbers)  # type: ignore[attr-defined]

    def wait_for(self, numbers: range, timeout: float = 20.0) -> None:
        wait_until(lambda: set(numbers) <= set(self.runs), timeout, f"runs of {numbers}")


def generation(worker: LocalWorker, queue: str = QUEUE) -> object:
    return worker.process.consumer._channels.get(queue)


def make_anew(vhost: Broker, channel: BlockingChannel) -> None:
    """Delete the queue and declare it again at once: RabbitMQ 3.10 does not notify its consumers, and delivers nothing."""
    queue = next(one for one in topology.work_queue("amqpworker", QUEUE).queues if one.name == QUEUE)
    vhost.delete_queue(QUEUE)
    channel.queue_declare(QUEUE, durable=True, arguments=dict(queue.arguments))
    for exchange in ("amqpworker.tasks", "amqpworker.due"):
        channel.queue_bind(QUEUE, exchange, QUEUE)


def wait_for_another(worker: LocalWorker, before: object, queue: str = QUEUE) -> None:
    """Wait until the worker consumes again, on another channel than before."""

    def again() -> bool:
        return generation(worker, queue) is not before and worker.process.consumer.consuming

    wait_until(again, 20, "the worker consumes again")


def test_an_outcome_that_is_late_for_its_channel_acknowledges_nothing_on_the_next(vhost: Broker, app: App) -> None:
    """
    Tags begin anew on each channel.

    The first of the old one is still running when the first of the new one, another message, is running too.
    """
    counted = CountedTask(app)
    counted.held = {0, 1, 2, 3}
    with running(app, threads=8, prefetch=8) as worker:
        counted.send(range(4))
        counted.wait_for(range(4))
        before = generation(worker)
        second = threading.Event()
        vhost.close_connections()
        wait_for_another(worker, before)
        wait_until(lambda: all(counted.runs[n] == 2 for n in range(4)), 20, "each runs again")
        counted.held = {10, 11}
        counted.send(range(10, 12))
        counted.wait_for(range(10, 12))
        first_go, counted.go = counted.go, second
        first_go.set()
        wait_until(lambda: len(worker.process.runners.running) <= 2, what="the late outcomes are there")
        after = generation(worker)
        counted.send(range(20, 40))
        counted.wait_for(range(20, 40))
        assert generation(worker) is after, "no wrong ack has closed the channel"
        second.set()
    assert vhost.count(QUEUE) == 0
    assert {n: counted.runs[n] for n in range(4)} == dict.fromkeys(range(4), 2)
    assert all(counted.runs[n] == 1 for n in (10, 11, *range(20, 40)))


def test_a_queue_that_is_deleted_under_a_worker_is_declared_and_consumed_again(
    vhost: Broker, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "amqpworker.broker.consumer_check.CHECK_EVERY", 3600.0
    )  # It must not be the probe that notices.
    counted = CountedTask(app)
    with running(app, threads=2) as worker:
        counted.send(range(5))
        counted.wait_for(range(5))
        before = generation(worker)
        vhost.delete_queue(QUEUE)
        wait_for_another(worker, before)
        counted.send(range(5, 10))
        counted.wait_for(range(5, 10))
    assert max(counted.runs.values()) == 1
    assert vhost.count(QUEUE) == 0


def test_a_queue_that_is_deleted_while_its_tasks_run_voids_their_outcomes(vhost: Broker, app: App) -> None:
    counted = CountedTask(app)
    counted.held = {0, 1}
    with running(app, threads=4) as worker:
        counted.send(range(2))
        counted.wait_for(range(2))
        before = generation(worker)
        vhost.delete_queue(QUEUE)
        wait_for_another(worker, before)
        after = generation(worker)
        counted.go.set()
        wait_until(lambda: worker.process.runners.is_idle, what="the late outcomes are there")
        counted.send(range(10, 20))
        counted.wait_for(range(10, 20))
        assert generation(worker) is after
    assert max(counted.runs.values()) == 1


def test_a_queue_that_its_senders_make_again_is_not_left_by_its_consumer(vhost: Broker, app: App) -> None:
    """RabbitMQ 3.10 forgets a consumer whose queue is made again within 20 ms: no cancel, and no delivery ever."""
    counted = CountedTask(app)
    sent = itertools.count()

    def send() -> int:
        """Send until a queue takes it, as fast as that goes."""
        number = next(sent)
        while True:
            try:
                counted.task.send(number)  # type: ignore[attr-defined]
            except Unroutable:
                continue
            return number

    with running(app, threads=2):
        for _ in range(3):
            counted.wait_for(range(send(), send() + 1))
            vhost.delete_queue(QUEUE)
            counted.wait_for(range(send(), send() + 1))
    assert vhost.count(QUEUE) == 0


def test_a_consumer_that_the_broker_forgot_gets_its_messages_all_the_same(vhost: Broker, app: App) -> None:
    counted = CountedTask(app)
    with running(app, threads=2) as worker, raw_channel(vhost.url) as channel:
        counted.send(range(20))
        counted.wait_for(range(20))
        before = generation(worker)
        make_anew(vhost, channel)
        wait_for_another(worker, before)
        counted.send(range(20, 30))
        counted.wait_for(range(20, 30))
    assert max(counted.runs.values()) == 1
    assert vhost.count(QUEUE) == 0


def test_without_declaring_a_worker_waits_for_its_queue_and_then_consumes(
    vhost: Broker, make_app: Callable[..., App]
) -> None:
    app = make_app(declare=False)
    counted = CountedTask(app)
    with running(app, wait=False, threads=1) as worker:
        wait_until(lambda: QUEUE in worker.process.consumer.failures, what="404")
        assert "'work'" in str(worker.process.consumer.failures[QUEUE])
        vhost.declare_queue(QUEUE)
        worker.wait_until_consuming()
        assert vhost.management.publish(vhost.vhost, "", QUEUE, '{"n": 1}', {"type": "note"})
        counted.wait_for(range(1, 2))


@pytest.mark.parametrize("reply_code", [403, 404, 406])
def test_a_channel_that_the_broker_closes_is_opened_again(
    vhost: Broker, app: App, reply_code: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The queue that a channel consumes from does not matter to the broker: any wrong method closes it."""
    counted = CountedTask(app)
    with running(app, threads=2) as worker:
        counted.send(range(3))
        counted.wait_for(range(3))
        before = worker.process.consumer._channels[QUEUE]
        ask = {
            403: lambda: before.channel.pika.exchange_delete("amq.direct"),  # type: ignore[union-attr]
            404: lambda: before.channel.pika.queue_declare("no such queue", passive=True),  # type: ignore[union-attr]
            406: lambda: before.channel.pika.basic_ack(9999),  # type: ignore[union-attr]
        }[reply_code]
        loop = worker.process.consumer.keeper._loop
        loop.add_callback_threadsafe(ask)
        wait_for_another(worker, before)
        assert "queue_not_consumed" in caplog.text
        counted.send(range(3, 6))
        counted.wait_for(range(3, 6))
    assert vhost.count(QUEUE) == 0


def test_one_queue_that_cannot_be_consumed_does_not_keep_the_worker_from_the_other(
    vhost: Broker, make_app: Callable[..., App]
) -> None:
    app = make_app(declare=False)
    missing = CountedTask(app, queue="missing", name="missing")
    good = CountedTask(app, queue="good", name="good")
    vhost.declare_queue("good")
    with running(app, wait=False, threads=2) as worker:
        wait_until(lambda: worker.process.consumer.ever_consumed, what="the good queue is consumed")
        assert vhost.management.publish(vhost.vhost, "", "good", '{"n": 1}', {"type": "good"})
        good.wait_for(range(1, 2))
        vhost.declare_queue("missing")
        worker.wait_until_consuming()
        assert vhost.management.publish(vhost.vhost, "", "missing", '{"n": 1}', {"type": "missing"})
        missing.wait_for(range(1, 2))


def test_a_forbidden_queue_does_not_keep_the_worker_from_the_other(vhost: Broker, make_app: Callable[..., App]) -> None:
    user = f"limited-{vhost.vhost}"
    vhost.management.create_user(user, "secret")
    vhost.management.set_permissions(vhost.vhost, user, configure="^$", write=".*", read="^good$")
    for queue in ("good", "forbidden"):
        vhost.declare_queue(queue)
    try:
        app = make_app(vhost.node.url(vhost.vhost, user, "secret"), declare=False)
        good = CountedTask(app, queue="good", name="good")
        CountedTask(app, queue="forbidden", name="forbidden")
        with running(app, wait=False, threads=2) as worker:
            wait_until(lambda: worker.process.consumer.ever_consumed, what="the good queue is consumed")
            wait_until(lambda: "forbidden" in worker.process.consumer.failures, what="the other is refused")
            assert vhost.management.publish(vhost.vhost, "", "good", '{"n": 1}', {"type": "good"})
            good.wait_for(range(1, 2))
            vhost.management.set_permissions(vhost.vhost, user, configure="^$", write=".*", read=".*")
            worker.wait_until_consuming()
    finally:
        vhost.management.delete_user(user)


def test_a_queue_with_other_arguments_does_not_keep_the_worker_from_the_other(vhost: Broker, app: App) -> None:
    vhost.declare_queue("another")
    CountedTask(app, queue="another", name="another")
    good = CountedTask(app, queue="good", name="good")
    with running(app, wait=False, threads=2) as worker:
        wait_until(lambda: "another" in worker.process.consumer.failures, what="the other is refused")
        good.send(range(3))
        good.wait_for(range(3))


def test_a_worker_none_of_whose_queues_can_ever_be_consumed_ends_with_code_2(vhost: Broker, app: App) -> None:
    for queue in ("one", "two"):
        vhost.declare_queue(queue)
        CountedTask(app, queue=queue, name=queue)
    with running(app, wait=False, threads=2, code=2) as worker:
        wait_until(lambda: worker.code is not None, what="it ends by itself")


def test_connections_closed_again_and_again_lose_nothing(vhost: Broker, app: App) -> None:
    counted = CountedTask(app)
    with running(app, threads=4) as worker:
        for round_number in range(2):
            before = generation(worker)
            counted.send(range(round_number * 100, round_number * 100 + 100))
            vhost.close_connections()
            wait_for_another(worker, before)
        counted.wait_for(range(200))
    assert set(counted.runs) == set(range(200))
    assert vhost.count(QUEUE) == 0


def test_a_broker_that_restarts_gets_its_worker_back_and_nothing_is_lost(
    spare_node: Node, make_app: Callable[..., App]
) -> None:
    app = make_app(spare_node.url())
    counted = CountedTask(app)
    counted.held = {0, 1}
    with running(app, threads=4) as worker:
        counted.send(range(50))
        counted.wait_for(range(2))
        before = generation(worker)
        spare_node.save_queues()
        spare_node.kill()
        spare_node.start()
        wait_for_another(worker, before)
        counted.go.set()
        counted.send(range(50, 100))
        counted.wait_for(range(100), timeout=40)
    with raw_channel(spare_node.url()) as channel:
        assert channel.queue_declare(QUEUE, passive=True).method.message_count == 0


@contextmanager
def ack_timeout(node: Node, milliseconds: int) -> Iterator[None]:
    """Let the broker look every half a second whether a delivery is older than this, on channels opened meanwhile."""
    usual = node.rabbitmqctl("eval", "{ok, T} = application:get_env(rabbit, consumer_timeout), T.").strip()

    def let(timeout: int | str, tick: int) -> None:
        settings = f"[{{consumer_timeout, {timeout}}}, {{channel_tick_interval, {tick}}}]"
        node.rabbitmqctl("eval", f"[application:set_env(rabbit, K, V) || {{K, V}} <- {settings}].")

    let(milliseconds, 500)
    try:
        yield
    finally:
        let(usual, 60_000)


def test_a_task_longer_than_the_ack_timeout_costs_its_channel_and_nothing_else(
    spare_node: Node, make_app: Callable[..., App], caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app(spare_node.url())
    counted = CountedTask(app, queue="slow")
    counted.held = {0}
    with ack_timeout(spare_node, 1500), running(app, threads=4) as worker:
        before = generation(worker, "slow")
        counted.send(range(1))
        counted.wait_for(range(1))
        wait_for_another(worker, before, "slow")
        assert "acknowledgement on channel" in caplog.text
        wait_until(lambda: counted.runs[0] == 2, what="it runs again")
        after = generation(worker, "slow")
        counted.go.set()
        wait_until(lambda: worker.process.runners.is_idle, what="the late outcome is there")
        counted.send(range(1, 20))
        counted.wait_for(range(20))
        assert generation(worker, "slow") is after, "it acknowledged nothing on the next channel"
    with raw_channel(spare_node.url()) as channel:
        assert channel.queue_declare("slow", passive=True).method.message_count == 0
    assert sum(counted.runs.values()) == 21


def test_a_worker_that_is_started_before_its_broker_waits_for_it(
    vhost: Broker, make_app: Callable[..., App], caplog: pytest.LogCaptureFixture
) -> None:
    (port,) = free_ports(1)
    app = make_app(vhost.url.replace(str(vhost.node.ports.amqp), str(port)))
    counted = CountedTask(app)
    with running(app, wait=False, threads=1) as worker:
        wait_until(lambda: "connection_failed" in caplog.text, what="it reports that nothing listens")
        assert "Connection refused by" in caplog.text
        with Proxy(vhost.url, port):
            worker.wait_until_consuming(30)
            counted.send(range(3))
            counted.wait_for(range(3))


def test_current_is_the_same_message_on_both_runs_of_a_lost_delivery(vhost: Broker, app: App) -> None:
    ids: list[str] = []
    go = threading.Event()

    @app.task(name="look", queue=QUEUE)
    def look() -> None:
        ids.append(current().id)
        if len(ids) == 1:
            go.wait(30)

    with running(app, threads=2) as worker:
        sent = look.send()
        wait_until(lambda: ids, what="the first run")
        before = generation(worker)
        vhost.close_connections()
        wait_for_another(worker, before)
        wait_until(lambda: len(ids) == 2, what="the second run")
        go.set()
    assert ids == [sent.id] * 2
