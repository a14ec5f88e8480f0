"""A walk through a queue: whole, in order, by one walker at a time, and nothing is lost however it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from pathlib import Path

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from amqpworker import AccessRefused, App, NotConnected, QueueBusy, Settings, Unroutable
from amqpworker.broker import walk_consumers
from amqpworker.broker.admin import Admin
from amqpworker.broker.queue_walk import QueueWalker
from amqpworker.model.message import Delivery
from amqpworker.routing.topology import DEFAULT_NAMESPACE, UNIT, Names, base, dead_queue, ladder, work_queue
from tests.support import Broker, raw_channel, wait_until
from tests.workers import running

ROOT = Path(__file__).parents[2]
QUEUE = "some"
LEVEL = 4
LEVEL_SECONDS = UNIT * 2**LEVEL
WALK = """
import sys
from threading import Event
from amqpworker import Settings
from amqpworker.broker.queue_walk import QueueWalker
with QueueWalker(sys.argv[1], Settings()) as walker, walker.walk(sys.argv[2]) as walk:
    for delivery in walk:
        if walk.seen == int(sys.argv[3]):
            print(walk.seen, flush=True)
            while True:  # until the test ends; a signal that arrives just before a wait does not end that one
                Event().wait(0.1)
"""


def fill(broker: Broker, count: int, queue: str = QUEUE) -> None:
    """Declare a queue with this many numbered messages."""
    broker.declare_queue(queue, x_delivery_limit=2_000_000_000)
    with raw_channel(broker.url) as channel:
        for number in range(count):
            channel.basic_publish("", queue, str(number), pika.BasicProperties(message_id=str(number)))
        # While the channel is open: it publishes again to a queue that had no leader yet.
        broker.wait_for_count(queue, count)


def number_of(delivery: Delivery) -> int:
    return int(delivery.body)


def walked(broker: Broker, queue: str = QUEUE) -> list[int]:
    """Walk through a queue; return the numbers of its messages."""
    with QueueWalker(broker.url, Settings()) as walker, walker.walk(queue) as walk:
        return [number_of(delivery) for delivery in walk]


@contextmanager
def walk_in_another_process(url: str, queue: str, stop_at: int) -> Iterator[subprocess.Popen[bytes]]:
    """Have another process walk until it has seen this many messages, and wait there."""
    command = [sys.executable, "-c", WALK, url, queue, str(stop_at)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == f"{stop_at}\n".encode()
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("portion", [5_000, 40, 7])
def test_a_walk_sees_a_queue_whole_and_in_order_and_leaves_it_so(
    vhost: Broker, monkeypatch: pytest.MonkeyPatch, portion: int
) -> None:
    """With 7 messages each there are more than 32 consumers."""
    monkeypatch.setattr(walk_consumers, "PORTION", portion)
    fill(vhost, 260)
    for _ in range(3):
        assert walked(vhost) == list(range(260))
    with QueueWalker(vhost.url, Settings()) as walker, walker.walk(QUEUE) as walk:
        assert walk.total == 260
        assert walk.seen == 0
        assert len(list(walk)) == walk.seen == 260
    assert 0 < walk.seconds < 10
    assert vhost.count(QUEUE) == 260, "all of it was requeued before the walk had ended"


@pytest.mark.parametrize("portion", [5_000, 40, 7])
def test_what_is_removed_leaves_the_queue_and_the_rest_keeps_its_order(
    vhost: Broker, monkeypatch: pytest.MonkeyPatch, portion: int
) -> None:
    monkeypatch.setattr(walk_consumers, "PORTION", portion)
    fill(vhost, 390)
    with QueueWalker(vhost.url, Settings()) as walker:
        with walker.walk(QUEUE) as walk:
            for delivery in walk:
                if number_of(delivery) % 3 == 0:
                    walk.remove([delivery])
        assert walker.depth(QUEUE) == (260, 0)
        rest = [number for number in range(390) if number % 3]
        with walker.walk(QUEUE) as walk:
            held = [delivery for delivery in walk if number_of(delivery) < 200]
            walk.remove(held[::-1])
            walk.remove(held[:10])
            walk.remove([])
        assert [number for number in rest if number >= 200] == walked(vhost)
        with walker.walk(QUEUE) as walk:
            for delivery in walk:
                walk.remove([delivery])
        assert walker.depth(QUEUE) == (0, 0)
        assert walked(vhost) == []


def test_the_order_stays_while_others_publish(vhost: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk_consumers, "PORTION", 500)
    fill(vhost, 3_000)
    stop = threading.Event()

    def publish() -> int:
        number = 3_000
        with raw_channel(vhost.url) as channel:
            while not stop.is_set():
                channel.basic_publish("", QUEUE, str(number))
                number += 1
        return number

    with ThreadPoolExecutor(1) as pool:
        published = pool.submit(publish)
        try:
            seen = [walked(vhost) for _ in range(4)]
        finally:
            stop.set()
        count = published.result()
    for one in seen:
        assert one == list(range(len(one)))
        assert len(one) >= 3_000
    vhost.wait_for_count(QUEUE, count)
    assert walked(vhost) == list(range(count))


def test_a_walk_that_is_left_early_or_fails_leaves_the_queue_as_it_was(
    vhost: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part of it would go behind the rest, where an earlier walk has requeued that."""
    monkeypatch.setattr(walk_consumers, "PORTION", 40)
    fill(vhost, 300)

    def walk_until(walker: QueueWalker, error: BaseException | None) -> None:
        with walker.walk(QUEUE) as walk:
            for _ in walk:
                if walk.seen == 100:
                    break
            if error is not None:
                raise error

    for error in (KeyboardInterrupt(), SystemExit(), ZeroDivisionError(), None):
        with QueueWalker(vhost.url, Settings()) as walker:
            with pytest.raises(type(error)) if error else nullcontext():
                walk_until(walker, error)
            assert vhost.count(QUEUE) == 300
            with walker.walk(QUEUE):
                pass
        assert walked(vhost) == list(range(300))


def test_ctrl_c_ends_a_walk_and_leaves_the_queue_as_it_was(vhost: Broker) -> None:
    fill(vhost, 300)
    assert walked(vhost) == list(range(300))
    with walk_in_another_process(vhost.url, QUEUE, 100) as process:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) != 0
    assert vhost.count(QUEUE) == 300
    assert walked(vhost) == list(range(300))


def test_a_walker_that_is_killed_loses_nothing_and_the_next_walk_waits_for_all_of_it(vhost: Broker) -> None:
    fill(vhost, 6_000)
    for stop_at in (1, 5_500):
        with walk_in_another_process(vhost.url, QUEUE, stop_at) as process:
            process.send_signal(signal.SIGKILL)
            assert sorted(walked(vhost)) == list(range(6_000))


def test_a_queue_has_one_walker_at_a_time_and_a_second_one_waits_or_reports_it(vhost: Broker) -> None:
    fill(vhost, 100)
    reported: list[str] = []
    with QueueWalker(vhost.url, Settings(), patience=0.3, on_busy=reported.append) as second:
        with QueueWalker(vhost.url, Settings()) as first, first.walk(QUEUE) as walk:
            next(iter(walk))
            with pytest.raises(QueueBusy, match="Queue 'some' is being read by another program"), second.walk(QUEUE):
                raise AssertionError("there are two walkers")
            assert len(reported) == 1
        with second.walk(QUEUE) as walk:
            assert len(list(walk)) == 100

    def walk_in_turn(_: int) -> list[int]:
        # On a busy machine it takes a while until one of four is alone.
        with QueueWalker(vhost.url, Settings(), patience=40) as walker, walker.walk(QUEUE) as walk:
            return [number_of(delivery) for delivery in walk]

    with ThreadPoolExecutor(4) as pool:
        for seen in pool.map(walk_in_turn, range(4)):
            # Each may have taken one message before it noticed the others: these are requeued in any order.
            assert sorted(seen) == list(range(100)), f"a part of the queue was taken for the whole: {seen}"


def test_another_consumer_of_the_queue_is_an_error(vhost: Broker) -> None:
    fill(vhost, 4)
    with raw_channel(vhost.url) as channel, QueueWalker(vhost.url, Settings(), patience=0.2) as walker:
        channel.basic_qos(prefetch_count=2)
        channel.basic_consume(QUEUE, lambda *_: None)
        vhost.wait_for_count(QUEUE, 2)
        with pytest.raises(QueueBusy), walker.walk(QUEUE):
            pass


def test_a_walk_that_is_left_early_does_not_keep_the_rest_of_the_queue_in_memory(
    vhost: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walk_consumers, "PORTION", 10)
    fill(vhost, 200)
    kept: list[int] = []
    end = walk_consumers.WalkConsumers.end

    def counting(self: walk_consumers.WalkConsumers, on_ready: Callable[..., None]) -> None:
        kept.append(sum(len(one.deliveries) for one in self._by_tag.values()))
        end(self, on_ready)

    monkeypatch.setattr(walk_consumers.WalkConsumers, "end", counting)
    with QueueWalker(vhost.url, Settings()) as walker, walker.walk(QUEUE) as walk:
        next(iter(walk))
    (count,) = kept
    assert count <= 20


def consume_six(channel: BlockingChannel, vhost: Broker, left: int) -> None:
    """Have another consumer receive six messages, and wait until as many as this are ready."""
    channel.basic_qos(prefetch_count=6)
    channel.basic_consume(QUEUE, lambda *_: None)
    vhost.wait_for_count(QUEUE, left)


def cut_soon(channel: BlockingChannel) -> None:
    """Cut the connection of another consumer while the walk waits for it."""
    other = channel.connection._impl._transport._sock
    threading.Timer(0.7, other.shutdown, (socket.SHUT_RDWR,)).start()


@pytest.mark.parametrize("ends", [True, False])
def test_a_consumer_that_came_later_is_waited_for_or_reported_and_what_it_has_is_not_taken_for_the_end(
    vhost: Broker, monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    monkeypatch.setattr(walk_consumers, "PORTION", 4)
    fill(vhost, 20)
    with QueueWalker(vhost.url, Settings(), timeout=1.5) as walker:
        with raw_channel(vhost.url) as channel, walker.walk(QUEUE) as walk:
            deliveries = iter(walk)
            seen = [number_of(next(deliveries))]
            # one portion was read ahead, and the broker delivers the next one
            consume_six(channel, vhost, left=5)
            if ends:
                cut_soon(channel)
            with nullcontext() if ends else pytest.raises(QueueBusy, match="has begun to read queue 'some'"):
                seen += map(number_of, deliveries)
        if ends:
            assert sorted(seen) == list(range(20))
        wait_until(lambda: vhost.count(QUEUE) == 20)


def test_what_another_consumer_has_is_not_taken_for_the_end_although_some_of_the_walks_own_have_vanished(
    vhost: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walk_consumers, "PORTION", 4)
    fill(vhost, 20)
    with QueueWalker(vhost.url, Settings(), timeout=1.5) as walker:
        with raw_channel(vhost.url) as channel, walker.walk(QUEUE) as walk:
            deliveries = iter(walk)
            for _ in range(6):
                walk.remove([next(deliveries)])
            # The broker forgets a consumer of which all is acknowledged: two of four.
            wait_until(lambda: walker.state_of(QUEUE).consumers == 2)
            consume_six(channel, vhost, left=1)
            with pytest.raises(QueueBusy, match="has begun to read queue 'some'"):
                deque(map(walk.remove, ([delivery] for delivery in deliveries)), 0)
        left = sorted(walked(vhost))
        assert len(left) >= 6, "what the other one had is in the queue again"


@pytest.mark.parametrize("ends", [True, False])
def test_newer_messages_are_not_taken_for_those_that_another_consumer_has(
    vhost: Broker, monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    monkeypatch.setattr(walk_consumers, "PORTION", 4)
    fill(vhost, 20)
    with QueueWalker(vhost.url, Settings(), timeout=1.5) as walker:
        with raw_channel(vhost.url) as channel, walker.walk(QUEUE) as walk:
            deliveries = iter(walk)
            seen = [number_of(next(deliveries))]
            consume_six(channel, vhost, left=5)
            with raw_channel(vhost.url) as publishing:
                publishing.confirm_delivery()  # else they may be lost with the channel
                for number in range(20, 30):
                    publishing.basic_publish("", QUEUE, str(number))
            if ends:
                cut_soon(channel)
            with nullcontext() if ends else pytest.raises(QueueBusy, match="has begun to read queue 'some'"):
                seen += map(number_of, deliveries)
        if ends:
            assert sorted(seen) == list(range(30))
        wait_until(lambda: vhost.count(QUEUE) == 30)


def test_messages_that_leave_the_queue_meanwhile_are_not_waited_for(vhost: Broker) -> None:
    fill(vhost, 100)
    with QueueWalker(vhost.url, Settings()) as walker:
        with walker.walk(QUEUE) as walk:
            walk.total += 50  # as if so many had been there
            assert len(list(walk)) == 100
        assert walked(vhost) == list(range(100))


def test_a_lost_connection_is_an_error_and_everything_is_in_the_queue_again(vhost: Broker) -> None:
    fill(vhost, 300)

    def walk_and_take(walker: QueueWalker) -> None:
        with walker.walk(QUEUE) as walk:
            for delivery in walk:
                if walk.seen == 50:
                    vhost.close_connections()
                    wait_until(lambda: walker.connection is not walk._connection)
                walk.remove([delivery] if walk.seen >= 50 else [])

    with QueueWalker(vhost.url, Settings()) as walker:
        with pytest.raises(NotConnected, match="what was not removed is in the queue"):
            walk_and_take(walker)
        wait_until(lambda: walker.connection is not None)
        with walker.walk(QUEUE) as walk:
            assert sorted(map(number_of, walk)) == list(range(300))


def test_a_lost_ack_is_an_error_of_a_generator_that_is_closed(vhost: Broker) -> None:
    fill(vhost, 3)

    def removed(walker: QueueWalker) -> Iterator[Delivery]:
        with walker.walk(QUEUE) as walk:
            for delivery in walk:
                walk.remove([delivery])
                yield delivery

    with QueueWalker(vhost.url, Settings()) as walker:
        deliveries = removed(walker)
        next(deliveries)
        connection = walker.connection
        vhost.close_connections()
        wait_until(lambda: walker.connection is not connection)
        with pytest.raises(NotConnected, match="What was removed last"):
            deliveries.close()  # type: ignore[attr-defined]


def test_a_queue_that_does_not_exist_or_is_deleted_is_an_error(vhost: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk_consumers, "PORTION", 3)
    with QueueWalker(vhost.url, Settings()) as walker:
        with pytest.raises(Unroutable), walker.walk("none"):
            pass
        fill(vhost, 20)
        with walker.walk(QUEUE) as walk:
            deliveries = iter(walk)
            next(deliveries)
            vhost.wait_for_count(QUEUE, 13)  # the broker has delivered what is read ahead
            vhost.delete_queue(QUEUE)
            with pytest.raises(Unroutable):
                list(deliveries)


def test_permission_to_read_is_enough_to_walk(vhost: Broker, stranger: Callable[..., str]) -> None:
    fill(vhost, 3)
    with (
        QueueWalker(stranger(read=f"^{QUEUE}$"), Settings()) as walker,
        walker.walk(QUEUE) as walk,
    ):
        walk.remove(list(walk))
    assert vhost.count(QUEUE) == 0
    fill(vhost, 1)
    with (
        QueueWalker(stranger(), Settings()) as walker,
        pytest.raises(AccessRefused, match="lacks the permission `read` on queue 'some'"),
        walker.walk(QUEUE),
    ):
        pass


# ---- delay levels -----------------------------------------------------------------------------------------------------


def declare_ladder(broker: Broker, queue: str) -> None:
    with Admin(broker.url, Settings()) as admin:
        admin.declare(base(DEFAULT_NAMESPACE) + work_queue(DEFAULT_NAMESPACE, queue), lambda _: None)
        admin.declare(ladder(DEFAULT_NAMESPACE), lambda _: None)


def publish_delayed(channel: pika.adapters.blocking_connection.BlockingChannel, key: str, number: int) -> None:
    """Publish what waits in one level, with the time at which it is due."""
    due = time.time() + LEVEL_SECONDS
    headers = {f"aw-wait-{LEVEL:02d}": True, "due": str(due), "number": number}
    told = pika.BasicProperties(headers=headers, delivery_mode=2, message_id=str(number), type="seen")
    channel.basic_publish(Names().level(LEVEL), key, b"{}", told)


def test_due_times_and_order_stay_in_a_level_that_is_walked_while_others_publish(vhost: Broker) -> None:
    declare_ladder(vhost, "work")
    stop = threading.Event()
    count = 0

    def publish() -> int:
        number = 0
        with raw_channel(vhost.url) as channel:
            while not stop.wait(0.002):
                publish_delayed(channel, "work", number)
                number += 1
        return number

    walks: list[float] = []
    with ThreadPoolExecutor(1) as pool, QueueWalker(vhost.url, Settings()) as walker:
        published = pool.submit(publish)
        try:
            until = time.monotonic() + 2 * LEVEL_SECONDS
            while time.monotonic() < until:
                with walker.walk(Names().level(LEVEL)) as walk:
                    numbers = [(delivery.properties.headers or {})["number"] for delivery in walk]
                assert numbers == sorted(numbers)
                walks.append(walk.seconds)
        finally:
            stop.set()
        count = published.result()
    vhost.wait_for_count("work", count)
    # It was late by no more than a walk of its level, which two in a row may hold back.
    with QueueWalker(vhost.url, Settings()) as walker, walker.walk("work") as walk:
        numbers = [(delivery.properties.headers or {})["number"] for delivery in walk]
        assert not any((delivery.properties.headers or {}).get("x-delivery-count") for delivery in walk)
    assert sorted(numbers) == list(range(count))
    breaks = sum(one > other for one, other in pairwise(numbers))
    assert breaks <= len(walks), "each walk may let some that were due go behind newer ones that were delivered"


def test_deliveries_to_walkers_that_were_killed_in_a_level_make_no_task_a_suspect(
    vhost: Broker, make_app: Callable[..., App]
) -> None:
    """RabbitMQ 4 counts them, and carries the count to the queue of the task."""
    app = make_app()
    ran: list[int] = []

    @app.task(name="seen", queue="work", retry=None)
    def seen() -> None:
        ran.append(os.getpid())

    declare_ladder(vhost, "work")
    with raw_channel(vhost.url) as channel:
        for number in range(20):
            publish_delayed(channel, "work", number)
    level = Names().level(LEVEL)
    vhost.wait_for_count(level, 20)
    for _ in range(3):
        with raw_channel(vhost.url) as channel:
            channel.basic_consume(level, lambda *_: None)
            vhost.wait_for_count(level, 0)
            # to the broker this is the end of a killed process
            channel.connection._impl._transport._sock.shutdown(socket.SHUT_RDWR)
    with running(app, threads=1):
        wait_until(lambda: len(ran) == 20, timeout=15)
    assert set(ran) == {os.getpid()}, "none ran in an isolated process"
    assert vhost.count(dead_queue("work")) == 0
