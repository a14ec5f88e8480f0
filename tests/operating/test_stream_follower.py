"""What follows streams: reads them to their end, reads on after a loss, and notices that a stream was declared again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import pytest

from amqpworker.broker import stream_reader
from amqpworker.broker.address import addresses
from amqpworker.broker.stream_follower import StreamFollower
from amqpworker.broker.stream_reader import FollowedStream
from amqpworker.model.message import Delivery
from amqpworker.routing.queues import Plan
from amqpworker.settings import Settings
from amqpworker.testing.processes import free_ports
from tests.support import Broker, raw_channel, raw_publish, wait_until

PLAN = Plan("amqpworker", declare=True)
CONTROL, CANCELLED = PLAN.names.control, PLAN.names.cancelled


class Read:
    """What was read of each stream."""

    def __init__(self, url: str, *, declare: bool = True) -> None:
        self.control: list[bytes] = []
        self.cancelled: list[bytes] = []
        self.ready = threading.Event()
        of_control = self._followed(CONTROL, "last", self.control, declare)
        of_cancelled = self._followed(CANCELLED, "first", self.cancelled, declare)
        streams = [of_control, of_cancelled]
        self.follower = StreamFollower(addresses(url), Settings(), streams, on_ready=self.ready.set)

    @staticmethod
    def _followed(name: str, start: Literal["first", "last"], entries: list[bytes], declare: bool) -> FollowedStream:
        requirement = PLAN.control if name == CONTROL else PLAN.cancelled

        def on_entry(delivery: Delivery) -> None:
            entries.append(delivery.body)

        return FollowedStream(name, (requirement,) if declare else (), start, on_entry)


@contextmanager
def following(url: str, *, declare: bool = True) -> Iterator[Read]:
    """Follow both streams for the time of a block."""
    read = Read(url, declare=declare)
    read.follower.start()
    try:
        yield read
    finally:
        assert read.follower.stop(5)


def declare_streams(broker: Broker) -> None:
    """Have the streams declared."""
    with following(broker.url) as read:
        assert read.follower.caught_up(CONTROL, 5)
        assert read.follower.caught_up(CANCELLED, 5)


def publish(broker: Broker, stream: str, numbers: range) -> None:
    """Publish one entry for each number."""
    exchange, key = (CONTROL, "") if stream == CONTROL else ("amqpworker.tasks", CANCELLED)
    with raw_channel(broker.url) as channel:
        channel.confirm_delivery()
        for number in numbers:
            channel.basic_publish(exchange, key, str(number).encode(), mandatory=True)


def names_of(numbers: range) -> list[bytes]:
    """Return the bodies that `publish` publishes."""
    return [str(number).encode() for number in numbers]


def close_connections(broker: Broker) -> None:
    """Close the follower's connection, as soon as the API shows it."""

    def close() -> bool:
        found = [one["name"] for one in broker.management.connections(broker.vhost) if "follower" in str(one)]
        for name in found:
            broker.management.close_connection(name)
        return bool(found)

    wait_until(close, 10, "its connection was closed")


def test_streams_are_declared_and_followed(vhost: Broker) -> None:
    with following(vhost.url) as read:
        assert read.follower.caught_up(CONTROL, 5)
        assert read.follower.caught_up(CANCELLED, 5)
        assert read.ready.wait(1)
        assert read.control == read.cancelled == []
        publish(vhost, CONTROL, range(3))
        publish(vhost, CANCELLED, range(2000))
        raw_publish(vhost.url, "amqpworker.due", CANCELLED, b"it was due")
        wait_until(lambda: len(read.cancelled) == 2001, what="all entries arrive")
    assert read.control == names_of(range(3))
    assert read.cancelled == [*names_of(range(2000)), b"it was due"]


def test_a_stream_is_read_from_its_first_entries_or_from_its_last(vhost: Broker) -> None:
    declare_streams(vhost)
    publish(vhost, CONTROL, range(50))
    publish(vhost, CANCELLED, range(3000))
    with following(vhost.url) as read:
        assert read.follower.caught_up(CONTROL, 5)
        assert read.control[-1] == b"49"
        assert read.follower.caught_up(CANCELLED, 5)
        assert read.cancelled == names_of(range(3000))
    assert len(read.control) < 50


def test_after_a_lost_connection_it_reads_on(vhost: Broker) -> None:
    with following(vhost.url) as read:
        assert read.follower.caught_up(CANCELLED, 5)
        publish(vhost, CANCELLED, range(5))
        wait_until(lambda: len(read.cancelled) == 5, what="the first entries arrive")
        close_connections(vhost)
        publish(vhost, CANCELLED, range(5, 10))
        publish(vhost, CONTROL, range(1))
        wait_until(lambda: len(read.cancelled) == 10, what="the others arrive")
        wait_until(lambda: read.control == [b"0"], what="the other stream is read as well")
        assert read.follower.caught_up(CANCELLED, 5)
    assert read.cancelled == names_of(range(10)), "each entry once"


def test_a_stream_that_is_deleted_is_declared_again_and_read(
    vhost: Broker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stream_reader, "RETRY_AFTER", 0.2)
    with following(vhost.url) as read:
        assert read.follower.caught_up(CANCELLED, 5)
        publish(vhost, CANCELLED, range(5))
        wait_until(lambda: len(read.cancelled) == 5, what="the first entries arrive")
        vhost.management.delete_queue(vhost.vhost, CANCELLED)
        wait_until(lambda: vhost.count(CANCELLED) == 0, 10, "it is declared again")
        wait_until(lambda: read.follower.caught_up(CANCELLED, 0), 10, "it is bound again, too")
        publish(vhost, CANCELLED, range(7, 9))
        wait_until(lambda: len(read.cancelled) == 7, 10, "the new entries arrive")
    assert read.cancelled == [*names_of(range(5)), *names_of(range(7, 9))]
    assert len([one for one in caplog.messages if "stream_recreated" in one]) == 1


def test_a_stream_that_was_declared_again_meanwhile_is_read_from_its_beginning(
    vhost: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if it has more entries than the old one had."""
    monkeypatch.setattr(stream_reader, "RETRY_AFTER", 0.2)
    with following(vhost.url) as read:
        assert read.follower.caught_up(CANCELLED, 5)
        publish(vhost, CANCELLED, range(5))
        wait_until(lambda: len(read.cancelled) == 5, what="the first entries arrive")
        with raw_channel(vhost.url) as channel:
            channel.queue_delete(CANCELLED)
            for part in PLAN.cancelled.make_topology().queues:
                channel.queue_declare(part.name, durable=True, arguments=dict(part.arguments))
            channel.queue_bind(CANCELLED, "amqpworker.tasks", CANCELLED)
        publish(vhost, CANCELLED, range(100, 120))
        wait_until(lambda: len(read.cancelled) == 25, 10, "all new entries arrive")
    assert read.cancelled == [*names_of(range(5)), *names_of(range(100, 120))]


def test_without_a_stream_it_waits_until_there_is_one_with_one_warning(
    vhost: Broker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stream_reader, "RETRY_AFTER", 0.1)
    caplog.set_level(logging.INFO)
    with following(vhost.url, declare=False) as read:
        assert read.ready.wait(5), "nothing waits for it"
        assert not read.follower.caught_up(CONTROL, 5)
        assert "does not exist" in str(read.follower.failure(CONTROL))
        declare_streams(vhost)
        wait_until(lambda: read.follower.failure(CONTROL) is None, what="it is followed")
        publish(vhost, CONTROL, range(1))
        wait_until(lambda: read.control == [b"0"], what="the entry arrives")
    missing = [one for one in caplog.messages if "stream_not_followed" in one]
    assert len(missing) == 2, "one for each stream, however often it was tried"
    assert any("stream_followed" in one for one in caplog.messages)


def test_without_a_connection_nothing_is_known_and_no_consumer_may_begin_before_it_stops() -> None:
    (port,) = free_ports(1)
    ready = threading.Event()
    streams = [FollowedStream(CONTROL, (), "last", lambda _: None)]
    follower = StreamFollower(
        addresses(f"amqp://127.0.0.1:{port}"), Settings(), streams, on_ready=ready.set, is_waited_for=lambda: False
    )
    follower.start()
    wait_until(lambda: follower.failure(CONTROL) is not None, what="a connection that is refused")
    assert not ready.is_set()
    assert follower.stop(5)
    assert ready.is_set()
