"""The consuming side of a process, as far as it needs no broker."""

from __future__ import annotations

from typing import Any

import pytest

from amqpworker.broker.address import addresses
from amqpworker.broker.connection import ChannelClosedByBroker, QueueState
from amqpworker.broker.connection_problem import ConnectionProblem
from amqpworker.broker.consumer import Consumer
from amqpworker.broker.consumer_channel import ConsumerChannel, Subscription
from amqpworker.model.message import Delivery, Properties
from amqpworker.settings import Settings
from tests.unit.broker.consuming import WORK, SlowChannel, SlowConnection, consuming
from tests.unit.worker.settling import IgnoringReceiver


def delivery(tag: int) -> Delivery:
    return Delivery(tag, False, "amqpworker.tasks", "another key", Properties(), b"{}")


class Taking(IgnoringReceiver):
    """A receiver that keeps what it is given."""

    def __init__(self) -> None:
        self.taken: list[Delivery] = []

    def on_delivery(self, delivery: Delivery) -> None:
        self.taken.append(delivery)


def test_a_delivery_belongs_to_the_channel_and_the_queue_that_it_came_by() -> None:
    receiver = Taking()
    consumer_channel = ConsumerChannel(WORK, receiver, lambda: None)
    one = delivery(1)
    consumer_channel.on_delivery(one)
    assert receiver.taken == [one]
    assert one.channel is consumer_channel
    assert one.queue == "work"
    assert list(consumer_channel.unclaimed) == [1]


def test_a_delivery_of_the_queue_beside_a_bounded_one_is_of_that_queue_and_goes_first() -> None:
    consumer_channel = ConsumerChannel(Subscription("work.due", 10, beside="work"), Taking(), lambda: None)
    one = delivery(1)
    consumer_channel.on_delivery(one)
    assert one.queue == "work"
    assert consumer_channel.queue == "work.due"
    assert consumer_channel.goes_first
    assert not ConsumerChannel(WORK, Taking(), lambda: None).goes_first


def test_the_first_delivery_that_waits_has_the_deadlines_checked() -> None:
    watched: list[int] = []
    consumer_channel = ConsumerChannel(WORK, Taking(), lambda: watched.append(1))
    consumer_channel.on_delivery(delivery(1))
    consumer_channel.on_delivery(delivery(2))
    assert len(watched) == 1
    consumer_channel.unclaimed.clear()
    consumer_channel.on_delivery(delivery(3))
    assert len(watched) == 2


def test_a_channel_that_is_void_takes_nothing_any_more() -> None:
    """What the broker had sent before it learned of the end is redelivered on the next channel."""
    receiver = Taking()
    consumer_channel = ConsumerChannel(WORK, receiver, lambda: None)
    consumer_channel.is_open = False
    consumer_channel.on_delivery(delivery(1))
    assert receiver.taken == []
    assert consumer_channel.unclaimed == {}


def test_without_a_connection_there_is_nothing_left_to_drain() -> None:
    consumer = Consumer(addresses("amqp://127.0.0.1:1"), Settings(), [WORK], IgnoringReceiver())
    drained: list[bool] = []
    consumer.drain(lambda: drained.append(True))
    assert drained == []
    consumer.on_tick()
    assert drained == [True]
    consumer.on_tick()
    assert drained == [True], "reported once"


@pytest.fixture
def opening() -> tuple[Consumer, SlowChannel, list[bool]]:
    """A consumer that has asked for its channel."""
    consumer = Consumer(addresses("amqp://127.0.0.1:1"), Settings(), [WORK], IgnoringReceiver())
    connection: Any = SlowConnection()
    consumer.on_opened(connection)
    return consumer, connection.channels[0], []


def test_a_drain_waits_for_a_subscription_that_is_on_its_way(
    opening: tuple[Consumer, SlowChannel, list[bool]],
) -> None:
    consumer, channel, drained = opening
    channel.open()
    consumer.drain(lambda: drained.append(True))
    consumer.on_wake()
    assert drained == [], "deliveries may come with its confirmation"
    channel.consumed()
    assert channel.steps == ["consume", "cancel"]
    assert drained == []
    channel.cancelled()
    assert drained == [True]


def test_a_channel_that_opens_during_a_drain_does_not_consume(
    opening: tuple[Consumer, SlowChannel, list[bool]],
) -> None:
    consumer, channel, drained = opening
    consumer.drain(lambda: drained.append(True))
    consumer.on_wake()
    assert drained == []
    channel.open()
    assert channel.steps == ["close"]
    assert drained == [True]


def test_a_queue_that_knows_no_ack_timeout_of_a_consumer_is_consumed_without_at_once() -> None:
    given = Settings(ack_timeout=60)
    consumer = Consumer(addresses("amqp://127.0.0.1:1"), given, [WORK], IgnoringReceiver())
    connection: Any = SlowConnection()
    channels = connection.channels
    consumer.on_opened(connection)
    channels[0].open()
    assert channels[0].arguments == {"x-consumer-timeout": 60_000}
    channels[0].closed(ChannelClosedByBroker(406, "PRECONDITION_FAILED - invalid arg 'x-consumer-timeout' for queue"))
    channels[1].open()
    assert channels[1].arguments == {}
    channels[1].closed(ChannelClosedByBroker(406, "PRECONDITION_FAILED - invalid arg 'x-consumer-timeout' for queue"))
    assert len(channels) == 2, "never again and again"
    assert "work" in consumer.failures


@pytest.mark.parametrize(("version", "named"), [("4.3.6", True), ("4.2.9", False)])
def test_a_subscription_that_the_broker_ends_names_what_was_late_where_it_does_so_for_that(
    version: str, named: bool
) -> None:
    _, receiver, wire, (channel,) = consuming()
    wire.server_properties = {"version": version}
    channel.cancelled_by_broker()
    assert receiver.late_after == ([1800.0] if named else [])


def test_a_channel_that_the_broker_closes_names_what_was_late_only_if_that_is_why() -> None:
    for text, named in (("delivery acknowledgement on channel 1 timed out", [1800.0]), ("unknown delivery tag", [])):
        _, receiver, _, (channel,) = consuming()
        channel.closed(ChannelClosedByBroker(406, f"PRECONDITION_FAILED - {text}"))
        assert receiver.late_after == named


def leave_to_others(consumer: Consumer, *queues: str) -> None:
    consumer.leave_to_others(frozenset(queues))
    consumer.on_wake()


def test_a_queue_that_is_suspended_has_no_consumer_until_it_is_resumed_and_its_channel_stays() -> None:
    consumer, _, _, (channel,) = consuming()
    leave_to_others(consumer, "work")
    leave_to_others(consumer, "work")
    assert channel.steps == ["consume", "cancel"]
    assert consumer.subscribed() == []
    assert consumer.consuming, "it is sound, and others consume the queue"
    channel.cancelled()
    leave_to_others(consumer)
    assert channel.steps == ["consume", "cancel", "consume"]
    assert consumer.consuming
    channel.consumed()
    assert consumer.subscribed() == ["work"]


def consuming_bounded() -> tuple[Consumer, list[SlowChannel]]:
    queues = [Subscription("work.due", 10, beside="work"), WORK, Subscription("other", 10)]
    consumer = Consumer(addresses("amqp://127.0.0.1:1"), Settings(), queues, IgnoringReceiver())
    wire: Any = SlowConnection()
    consumer.on_opened(wire)
    for channel in wire.channels:
        channel.open()
        channel.consumed()
    return consumer, wire.channels


def test_a_bounded_queue_and_the_one_beside_it_have_the_same_prefetch() -> None:
    consumer, channels = consuming_bounded()
    consumer.set_prefetch({"work": 40})
    consumer.on_wake()
    assert [channel.prefetches for channel in channels] == [[10, 40], [10, 40], [10]]


def test_a_bounded_queue_is_suspended_with_the_one_beside_it() -> None:
    consumer, channels = consuming_bounded()
    leave_to_others(consumer, "work")
    assert [channel.steps for channel in channels] == [["consume", "cancel"], ["consume", "cancel"], ["consume"]]
    leave_to_others(consumer)
    assert [channel.steps[-1] for channel in channels] == ["consume"] * 3


def test_the_limit_of_a_channel_is_lifted_before_it_consumes_again_where_one_was_set() -> None:
    consumer, _, _, (channel,) = consuming("3.10.8")
    leave_to_others(consumer, "work")
    leave_to_others(consumer)
    assert channel.steps == ["consume", "cancel", "remove_shared_limit", "consume"]


def test_a_subscription_that_is_on_its_way_is_suspended_when_it_is_there(
    opening: tuple[Consumer, SlowChannel, list[bool]],
) -> None:
    consumer, channel, _ = opening
    channel.open()
    leave_to_others(consumer, "work")
    assert channel.steps == ["consume"]
    channel.consumed()
    assert channel.steps == ["consume", "cancel"]


@pytest.mark.parametrize("resumed", [False, True])
def test_a_drain_waits_until_a_queue_that_is_suspended_or_just_resumed_brings_nothing_any_more(resumed: bool) -> None:
    consumer, _, _, (channel,) = consuming()
    drained: list[bool] = []
    leave_to_others(consumer, "work")
    before = channel.cancelled
    if resumed:
        leave_to_others(consumer)
    consumer.drain(lambda: drained.append(True))
    consumer.on_wake()
    assert drained == [], "deliveries may arrive before the end of the subscription is confirmed"
    before()
    assert drained == ([] if resumed else [True])
    if resumed:
        channel.consumed()
        channel.cancelled()
    assert drained == [True]


def test_a_queue_whose_channel_ends_while_it_is_suspended_is_suspended_again_on_the_next() -> None:
    consumer, _, wire, channels = consuming()
    leave_to_others(consumer, "work")
    consumer.on_lost(ConnectionProblem("It is gone.", "unreachable", "here"))
    assert not consumer.consuming
    leave_to_others(consumer, "work")
    consumer.on_opened(wire)  # type: ignore[arg-type]
    channels[1].open()
    channels[1].consumed()
    assert channels[1].steps == ["consume", "cancel"]


NOBODY_THERE = QueueState(0, 0)
PERHAPS_SILENT = QueueState(0, 0, is_unreliable=True)


def test_an_answer_that_means_nothing_ends_nothing_that_runs() -> None:
    consumer, _, _, channels = consuming()
    consumer._channels["work"].on_delivery(delivery(1))
    for _ in range(50):
        consumer.on_checked("work", PERHAPS_SILENT)
    assert "close" not in channels[0].steps
    consumer._channels["work"].acknowledge([1])
    consumer.on_checked("work", PERHAPS_SILENT)
    consumer.on_checked("work", QueueState(0, 1))
    consumer.on_checked("work", PERHAPS_SILENT)
    assert "close" not in channels[0].steps, "it was asked again, and all is well"
    consumer.on_checked("work", PERHAPS_SILENT)
    assert "close" in channels[0].steps


def test_it_is_asked_again_before_a_subscription_is_left() -> None:
    consumer, _, _, channels = consuming()
    consumer._channels["work"].on_delivery(delivery(1))
    consumer.on_checked("work", NOBODY_THERE)
    assert "close" not in channels[0].steps
    consumer.on_checked("work", NOBODY_THERE)
    assert "close" in channels[0].steps


def test_a_delivery_that_arrives_slowly_does_not_count_as_a_silent_subscription() -> None:
    consumer, _, wire, channels = consuming()
    wire.own_part = wire.has_partial = True
    for _ in range(50):
        consumer.on_checked("work", QueueState(5, 1))
    assert "close" not in channels[0].steps
    wire.own_part = False
    for _ in range(10):
        consumer.on_checked("work", QueueState(5, 1))
    assert "close" not in channels[0].steps, "it may wait behind one of another queue"
    wire.has_partial = False
    consumer.on_checked("work", QueueState(5, 1))
    assert "close" in channels[0].steps
