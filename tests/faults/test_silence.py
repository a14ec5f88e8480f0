"""Brokers and networks that are silent or slow: who is silent is left in time, and who is slow is waited for."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from amqpworker import App
from amqpworker.broker import consumer_check as probe
from amqpworker.routing import topology
from amqpworker.testing.processes import free_ports
from tests.cli import environment, run
from tests.nodes import Node
from tests.proxy import Proxy
from tests.support import Broker, wait_until
from tests.workers import LocalWorker, running

QUEUE = "work"
MakeApp = Callable[..., App]


def sizes(app: App, name: str = "size") -> tuple[list[int], object]:
    """Make a task that notes the size of each text it is given."""
    noted: list[int] = []

    @app.task(name=name, queue=QUEUE)
    def size(text: str) -> None:
        noted.append(len(text))

    return noted, size


def channel_of(worker: LocalWorker) -> object:
    return worker.process.consumer._channels.get(QUEUE)


@pytest.fixture
def own_node(make_node: Callable[..., Node]) -> Node:
    """A node whose queues may be spoiled: what is frozen inside of it may be frozen for ever."""
    node = make_node()
    node.start()
    return node


@contextmanager
def frozen(node: Node) -> Iterator[None]:
    """Freeze a node."""
    pid = node.status().pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def suspended(node: Node, process: str, seconds: float) -> threading.Thread:
    """Freeze one process of the node for `seconds` from now on; returns the thread that does so."""
    begun = threading.Event()
    expression = (
        f"P = {process}, erlang:suspend_process(P), timer:sleep({round(seconds * 1000)}), erlang:resume_process(P)."
    )

    def run() -> None:
        begun.set()
        node.rabbitmqctl("eval", expression)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    begun.wait()
    return thread


def leader(vhost: str, queue: str) -> str:
    """Return the Erlang expression of a queue's process."""
    return f"whereis('{vhost}_{queue}')"


# ---- slow -----------------------------------------------------------------------------------------------------------


def test_a_message_that_takes_long_on_the_wire_arrives_and_runs_once(make_app: MakeApp, vhost: Broker) -> None:
    with Proxy(vhost.url) as proxy:
        producer = make_app()
        _, task = sizes(producer)
        consuming = make_app(proxy.url)
        noted, _ = sizes(consuming)
        with running(consuming, threads=1, prefetch=1) as worker:
            before = channel_of(worker)
            proxy.limit("to_client", 70_000)
            for _ in range(2):
                task.send("x" * 700_000)  # type: ignore[attr-defined]
            wait_until(lambda: noted, 40, "the message has run")
            assert channel_of(worker) is before
            proxy.heal()
            wait_until(lambda: len(noted) == 2, 20, "so has the other")
    assert noted == [700_000] * 2
    assert vhost.count(QUEUE) == 0


def test_a_message_that_takes_long_to_be_sent_is_confirmed(make_app: MakeApp, vhost: Broker) -> None:
    with Proxy(vhost.url) as proxy:
        app = make_app(proxy.url, send_timeout=30.0)
        _, task = sizes(app)
        task.send("")  # type: ignore[attr-defined]
        proxy.limit("to_broker", 200_000)
        task.send("x" * 1_000_000)  # type: ignore[attr-defined]
        assert proxy.accepted == 1
    assert vhost.count(QUEUE) == 2


# ---- silent ---------------------------------------------------------------------------------------------------------


def test_a_frozen_broker_is_left_within_eight_seconds_by_both_sides_and_sends_are_confirmed_elsewhere(
    make_app: MakeApp, vhost: Broker, spare_node: Node
) -> None:
    (port,) = free_ports(1)
    elsewhere = vhost.url.replace(f":{urlsplit(vhost.url).port}", f":{port}")
    app = make_app(f"{spare_node.url()},{elsewhere}", send_timeout=15.0, heartbeat=60)
    noted, task = sizes(app)
    with running(app, threads=1) as worker, ThreadPoolExecutor() as pool:
        task.send("x")  # type: ignore[attr-defined]
        wait_until(lambda: noted, what="it works")
        with Proxy(vhost.url, port) as proxy, frozen(spare_node):
            sent = pool.submit(task.send, "xx")  # type: ignore[attr-defined]
            wait_until(lambda: proxy.accepted == 2, 9.5, "both have gone elsewhere")
            sent.result(15)
            wait_until(lambda: 2 in noted, 10, "it has run")
            worker.wait_until_consuming()
    assert noted == [1, 2]


def test_a_send_outlives_a_broker_that_is_frozen_for_a_while(make_app: MakeApp, spare_node: Node) -> None:
    app = make_app(spare_node.url(), send_timeout=30.0, heartbeat=60, connect_timeout=2.0)
    noted, task = sizes(app)
    with running(app, threads=1), ThreadPoolExecutor() as pool:
        task.send("x")  # type: ignore[attr-defined]
        wait_until(lambda: noted, what="it works")
        with frozen(spare_node):
            sent = pool.submit(task.send, "xx")  # type: ignore[attr-defined]
            threading.Event().wait(9)
        sent.result(30)
        wait_until(lambda: 2 in noted, 30, "it has run")


def test_a_connection_of_which_half_is_lost_is_left_by_an_idle_worker(make_app: MakeApp, vhost: Broker) -> None:
    with Proxy(vhost.url) as proxy:
        app = make_app(proxy.url, heartbeat=0, connect_timeout=2.0)
        noted, task = sizes(app)
        with running(app, threads=1) as worker:
            wait_until(lambda: proxy.accepted == 3 and app.producer.publisher.connected, what="all are connected")
            before = channel_of(worker)
            proxy.swallow("to_client")
            wait_until(lambda: channel_of(worker) is not before, 9.5, "the connection is left")
            proxy.heal()
            task.send("x")  # type: ignore[attr-defined]
            wait_until(lambda: noted, 20, "it has run")


def test_a_queue_that_never_confirms_is_not_taken_for_a_silent_broker(make_app: MakeApp, own_node: Node) -> None:
    app = make_app(own_node.url(), send_timeout=40.0)
    _, task = sizes(app)
    task.send("x")  # type: ignore[attr-defined]
    before = app.producer.publisher.session.connection
    pause = suspended(own_node, leader("%2F", QUEUE), 14)
    done = threading.Event()
    while pause.is_alive() and not done.wait(0.1):
        task.send("x")  # type: ignore[attr-defined]
    pause.join(30)
    assert app.producer.publisher.session.connection is before


def test_a_broker_under_an_alarm_is_not_left(make_app: MakeApp, spare_node: Node) -> None:
    app = make_app(spare_node.url(), send_timeout=40.0, heartbeat=60)
    _, task = sizes(app)
    task.send("x")  # type: ignore[attr-defined]
    before = app.producer.publisher.session.connection
    assert before is not None
    with ThreadPoolExecutor() as pool:
        with spare_node.alarm():
            sent = pool.submit(task.send, "x")  # type: ignore[attr-defined]
            wait_until(lambda: before.is_blocked, 20, "it is blocked")
            threading.Event().wait(10)
        sent.result(40)
    assert app.producer.publisher.session.connection is before
    # Not deleted: RabbitMQ 3.10 serves no queue that was made again once it was killed after that (a raw client: 1 of 1).
    spare_node.management.purge_queue("/", QUEUE)


# ---- what is asked and not answered ---------------------------------------------------------------------------------


def test_a_declaration_without_an_answer_is_asked_for_at_the_next_address(make_app: MakeApp, own_node: Node) -> None:
    with Proxy(own_node.url()) as one, Proxy(own_node.url()) as other:
        app = make_app(f"{one.url},{other.url}", send_timeout=40.0)
        _, task = sizes(app)
        pause = suspended(own_node, "whereis(ra_server_sup_sup)", 16)
        wait_until(lambda: not moves(own_node, "whereis(ra_server_sup_sup)"), 20, "declarations are frozen")
        with ThreadPoolExecutor() as pool:
            sent = pool.submit(task.send, "x")  # type: ignore[attr-defined]
            wait_until(lambda: one.accepted == 1 and other.accepted == 1, 8, "both were tried")
            pause.join(30)
            sent.result(40)
            assert one.accepted + other.accepted <= 4, "more slowly in each round"


def test_a_subscription_without_an_answer_is_asked_for_at_the_next_address(make_app: MakeApp, own_node: Node) -> None:
    spare = Broker(own_node, "/")
    with Proxy(own_node.url()) as one, Proxy(own_node.url()) as other:
        app = make_app(f"{one.url},{other.url}")
        _, task = sizes(app)
        task.send("x")  # type: ignore[attr-defined]
        assert spare.get(QUEUE) is not None
        wait_until(lambda: one.accepted + other.accepted == 1, what="the publisher is connected")
        consuming = make_app(f"{one.url},{other.url}", declare=False)
        sizes(consuming)
        pause = suspended(own_node, leader("%2F", QUEUE), 12)
        wait_until(lambda: not moves(own_node, leader("%2F", QUEUE)), 20, "the queue is frozen")
        with running(consuming, wait=False, threads=1) as worker:
            wait_until(
                lambda: one.accepted + other.accepted >= 4 and one.accepted and other.accepted, 9, "both were tried"
            )
            pause.join(30)
            worker.wait_until_consuming(30)
            wait_until(lambda: spare.consumers(QUEUE) == 1, 20, "those that were given up have ended")


def test_a_subscription_without_an_answer_ends_nothing_that_runs(make_app: MakeApp, own_node: Node) -> None:
    spare = Broker(own_node, "/")
    app = make_app(own_node.url())
    noted, task = sizes(app)
    runs: list[int] = []
    go = threading.Event()

    @app.task(name="hold", queue="other")
    def hold(n: int) -> None:
        runs.append(n)
        go.wait(60)

    task.send("x")  # type: ignore[attr-defined]
    hold.send(1)
    pause = suspended(own_node, leader("%2F", QUEUE), 14)
    wait_until(lambda: not moves(own_node, leader("%2F", QUEUE)), 20, "the queue is frozen")
    with running(app, wait=False, threads=2) as worker:
        wait_until(lambda: runs, what="the other queue is served")
        wait_until(lambda: QUEUE in worker.process.consumer.failures, 20, "that it is not answered")
        pause.join(30)
        wait_until(lambda: noted, 40, "it has run")
        go.set()
        wait_until(lambda: worker.process.runners.is_idle, what="all is done")
    assert runs == [1]
    assert spare.count("other") == 0


def moves(node: Node, process: str) -> bool:
    """Return whether a process of the node makes progress."""
    return "suspended" not in node.rabbitmqctl("eval", f"process_info({process}, status).")


def test_a_command_line_send_that_was_not_confirmed_waits_for_nothing_at_its_end(
    make_app: MakeApp, own_node: Node, tmp_path: Path
) -> None:
    _, task = sizes(make_app(own_node.url()))
    task.send("x")  # type: ignore[attr-defined]
    pause = suspended(own_node, leader("%2F", QUEUE), 12)
    wait_until(lambda: not moves(own_node, leader("%2F", QUEUE)), 20, "the queue does not move")
    began = time.monotonic()
    ended = run(tmp_path, environment(own_node.url()), "send", "size", "-q", QUEUE, "--timeout", "1", timeout=60)
    assert (ended.code, "did not confirm in time" in ended.complaint()) == (1, True)
    assert time.monotonic() - began < 9, "with a wait at its end it is 11 s"
    pause.join(40)


# ---- what the broker reports of our queues ----------------------------------------------------------------------------


def test_a_queue_whose_leader_is_silent_is_not_taken_for_one_without_consumers(
    make_app: MakeApp, vhost: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RabbitMQ answers after 250 ms that there are no messages and no consumers."""
    monkeypatch.setattr(probe, "CHECK_EVERY", 0.3)
    app = make_app()
    runs: list[int] = []
    go = threading.Event()

    @app.task(name="hold", queue=QUEUE)
    def hold(n: int) -> None:
        runs.append(n)
        go.wait(60)

    with running(app, threads=2) as worker:
        hold.send(1)
        wait_until(lambda: runs, what="it runs")
        before = channel_of(worker)
        suspended(vhost.node, leader(vhost.vhost, QUEUE), 4).join(60)
        assert channel_of(worker) is before
        go.set()
        wait_until(lambda: worker.process.runners.is_idle and vhost.count(QUEUE) == 0, what="it is done")
    assert runs == [1]


def test_the_subscription_of_an_idle_queue_is_left_alone(
    make_app: MakeApp, vhost: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "CHECK_EVERY", 0.2)
    app = make_app()
    sizes(app)
    with running(app, threads=1) as worker:
        first = channel_of(worker)
        threading.Event().wait(6)
        assert channel_of(worker) is first


def test_a_queue_that_is_made_anew_at_once_is_consumed_again_at_once(
    make_app: MakeApp, vhost: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RabbitMQ before 4.0 subscribes for us again, and that consumer gets nothing."""
    monkeypatch.setattr(probe, "CHECK_EVERY", 3600.0)
    app = make_app()
    noted, task = sizes(app)
    work = next(one for one in topology.work_queue("amqpworker", QUEUE).queues if one.name == QUEUE)
    with running(app, threads=1) as worker:
        before = channel_of(worker)
        vhost.delete_queue(QUEUE)
        vhost.management.declare_queue(vhost.vhost, QUEUE, dict(work.arguments))
        wait_until(lambda: channel_of(worker) is not before and worker.process.consumer.consuming, 20, "it is")
        task.send("x")  # type: ignore[attr-defined]
        wait_until(lambda: noted, what="it has run")
