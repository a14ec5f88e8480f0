"""Another prefetch for a queue that is consumed: another consumer first, then the former one is cancelled."""

from __future__ import annotations

from typing import Any

import pytest

from amqpworker.broker.connection_problem import ConnectionProblem
from amqpworker.broker.consumer import Consumer
from amqpworker.model.message import Delivery, Properties
from tests.unit.broker.consuming import consuming

GONE = ConnectionProblem("It is gone.", "unreachable", "here")


def change(consumer: Consumer, prefetch: int) -> None:
    consumer.set_prefetch({"work": prefetch})
    consumer.on_wake()


def leave_to_others(consumer: Consumer, *queues: str) -> None:
    consumer.leave_to_others(frozenset(queues))
    consumer.on_wake()


def test_another_consumer_is_confirmed_before_the_former_one_is_cancelled() -> None:
    consumer, receiver, _, (channel,) = consuming()
    change(consumer, 20)
    assert channel.steps == ["consume", "consume"]
    assert channel.prefetches == [10, 20]
    assert consumer.subscribed() == ["work"]
    assert receiver.replaced == []
    first, second = channel.tags
    channel.consumed()
    assert channel.steps == ["consume", "consume", "cancel"]
    assert channel.tags == [second] != [first]
    assert receiver.replaced == ["work"], "before anything can be redelivered"
    channel.cancelled()
    assert consumer.subscribed() == ["work"]
    change(consumer, 20)
    assert "consume" not in channel.steps[3:], "it has this prefetch already"


def test_acknowledgements_wait_until_the_former_consumer_is_cancelled() -> None:
    """They would have the broker send to it what would be redelivered then."""
    consumer, _, _, (channel,) = consuming()
    consumer_channel = consumer._channels["work"]
    consumer_channel.flush()
    assert channel.steps == ["consume", "flush"]
    change(consumer, 20)
    consumer_channel.flush()
    channel.consumed()
    consumer_channel.flush()
    assert channel.steps == ["consume", "flush", "consume", "cancel"]
    channel.cancelled()
    assert channel.steps == ["consume", "flush", "consume", "cancel", "flush"]


def test_acknowledgements_do_not_wait_for_long_if_the_broker_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    consumer, _, _, (channel,) = consuming()
    later: list[Any] = []
    monkeypatch.setattr(consumer.keeper, "call_later", lambda delay, callback: later.append((delay, callback)) or print)
    change(consumer, 20)
    [(delay, callback)] = later
    assert delay == 1.0
    callback()
    assert channel.steps == ["consume", "consume", "flush"]
    consumer._channels["work"].flush()
    assert channel.steps == ["consume", "consume", "flush", "flush"]


def test_what_was_asked_for_meanwhile_follows_when_the_former_consumer_is_cancelled() -> None:
    consumer, _, _, (channel,) = consuming()
    change(consumer, 20)
    change(consumer, 30)
    channel.consumed()
    change(consumer, 40)
    assert channel.prefetches == [10, 20]
    channel.cancelled()
    assert channel.prefetches == [10, 20, 40]
    assert len(channel.tags) == 2
    channel.consumed()
    assert len(channel.tags) == 1


@pytest.mark.parametrize("confirmed", [False, True])
def test_a_queue_is_suspended_when_its_consumer_is_replaced_and_has_no_consumer_then(confirmed: bool) -> None:
    consumer, _, _, (channel,) = consuming()
    change(consumer, 20)
    if confirmed:
        channel.consumed()
    leave_to_others(consumer, "work")
    assert consumer.consuming
    if not confirmed:
        channel.consumed()
    assert len(channel.tags) == 1, "the former one is cancelled, the other one is not yet"
    channel.cancelled()
    assert channel.tags == []
    channel.cancelled()
    assert consumer.consuming
    leave_to_others(consumer)
    channel.consumed()
    assert consumer.subscribed() == ["work"]
    assert channel.prefetches == [10, 20, 20]


def test_a_queue_that_is_suspended_gets_its_prefetch_when_it_is_resumed() -> None:
    consumer, _, _, (channel,) = consuming()
    leave_to_others(consumer, "work")
    channel.cancelled()
    change(consumer, 20)
    assert channel.prefetches == [10]
    leave_to_others(consumer)
    assert channel.prefetches == [10, 20]


def test_a_queue_that_is_suspended_and_resumed_in_between_keeps_its_one_consumer() -> None:
    consumer, _, _, (channel,) = consuming()
    change(consumer, 20)
    leave_to_others(consumer, "work")
    leave_to_others(consumer)
    channel.consumed()
    channel.cancelled()
    assert channel.steps.count("consume") == 2
    assert len(channel.tags) == 1
    assert consumer.subscribed() == ["work"]


@pytest.mark.parametrize("confirmed", [False, True])
def test_a_drain_waits_until_both_consumers_are_cancelled(confirmed: bool) -> None:
    consumer, _, _, (channel,) = consuming()
    drained: list[bool] = []
    change(consumer, 20)
    if confirmed:
        channel.consumed()
    consumer.drain(lambda: drained.append(True))
    consumer.on_wake()
    if not confirmed:
        channel.consumed()
    assert drained == []
    channel.cancelled()
    assert drained == []
    assert channel.tags == []
    channel.cancelled()
    assert drained == [True]
    consumer.on_wake()
    assert channel.steps.count("cancel") == 2


def test_nothing_is_changed_during_a_drain() -> None:
    consumer, _, _, (channel,) = consuming()
    consumer.drain(lambda: None)
    change(consumer, 20)
    assert channel.steps == ["consume", "cancel"]


def test_the_next_connection_begins_with_the_prefetch_that_was_set_last() -> None:
    consumer, _, wire, channels = consuming()
    change(consumer, 20)
    consumer.on_lost(GONE)
    channels[0].consumed()
    assert channels[0].steps == ["consume", "consume"], "what comes late changes nothing"
    consumer.on_opened(wire)  # type: ignore[arg-type]
    channels[1].open()
    assert channels[1].prefetches == [20]
    channels[1].consumed()
    assert channels[1].steps == ["consume"]


def test_a_queue_that_was_deleted_while_it_had_two_consumers_is_subscribed_to_once() -> None:
    consumer, _, _, (channel,) = consuming()
    later: list[Any] = []
    consumer.keeper.call_later = lambda _, callback: later.append(callback) or (lambda: None)  # type: ignore[method-assign]
    change(consumer, 20)
    del later[:]
    channel.cancelled_by_broker()
    channel.cancelled_by_broker()
    assert channel.steps.count("close") == 1
    assert len(later) == 1, "one pause"


def test_the_limit_of_the_channel_is_lifted_for_the_other_consumer_where_one_was_set() -> None:
    consumer, _, _, (channel,) = consuming("3.10.8")
    change(consumer, 20)
    assert channel.steps == ["consume", "remove_shared_limit", "consume"]


def test_a_delivery_is_taken_from_either_consumer() -> None:
    consumer, _, _, (channel,) = consuming()
    consumer_channel = consumer._channels["work"]
    consumer_channel.on_delivery(Delivery(1, False, "amqpworker.tasks", "work", Properties(), b"{}"))
    change(consumer, 20)
    channel.consumed()
    consumer_channel.on_delivery(Delivery(2, False, "amqpworker.tasks", "work", Properties(), b"{}"))
    assert list(consumer_channel.unclaimed) == [1, 2]
    assert consumer_channel.has_unsettled
