"""How a walk takes a queue and requeues it: which consumers, which acks, and in which steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from amqpworker.broker.connection import ChannelClosedByUs, ConnectionEnded
from amqpworker.broker.pika_channel import MAX_PREFETCH
from amqpworker.broker.walk_consumers import (
    PORTION,
    Portions,
    RequeueStep,
    SubscriptionEnded,
    WalkConsumer,
    WalkConsumers,
)
from amqpworker.model.message import Delivery, Properties


class FakeChannel:
    """The broker's side of a channel, which answers at once, and a log of what was done on it."""

    def __init__(self, number: int, log: list[str], on_closed: Callable[[Any], None]) -> None:
        self.number = number
        self.is_open = True
        self.on_cancelled: Callable[[], None] = lambda: None
        self._log = log
        self._on_closed = on_closed

    def on_cancel(self, on_cancelled: Callable[[], None]) -> None:
        self.on_cancelled = on_cancelled

    def consume(self, queue: str, prefetch: int, tag: str, on_consumed: Callable[[], None]) -> None:
        assert queue == "q"
        self._log.append(f"{self.number}: consume {prefetch} as {tag}")
        on_consumed()

    def cancel(self, tag: str, on_cancelled: Callable[[], None]) -> None:
        self._log.append(f"{self.number}: cancel {tag}")
        on_cancelled()

    def ask(self, queue: str, on_answer: Callable[[Any], None]) -> None:
        assert queue == "q"
        self._log.append(f"{self.number}: ask")
        on_answer(None)

    def ack(self, tag: int, multiple: bool) -> None:
        self._log.append(f"{self.number}: ack {'up to ' if multiple else ''}{tag}")

    def flush(self) -> None:
        pass

    def requeue_up_to(self, tag: int) -> None:
        self._log.append(f"{self.number}: requeue up to {tag}")

    def close(self) -> None:
        self._log.append(f"{self.number}: close")
        self.is_open = False
        self._on_closed(ChannelClosedByUs())


class Scene:
    """A walk on fake channels."""

    def __init__(self, by_closing: bool) -> None:
        self.log: list[str] = []
        self.errors: list[BaseException] = []
        self.channels: list[FakeChannel] = []
        self.progress = 0
        self.consumers = WalkConsumers("q", by_closing, self._on_progress, self.errors.append)
        self._tags: dict[int, int] = {}

    def _on_progress(self) -> None:
        self.progress += 1

    def open_channel(self, listener: Any, on_opened: Callable[[Any], None], on_closed: Callable[[Any], None]) -> None:
        assert listener is self.consumers
        self.channels.append(FakeChannel(len(self.channels) + 1, self.log, on_closed))
        on_opened(self.channels[-1])

    def portion(self, tag: str, credit: int, arrives: int | None = None, own_channel: bool = False) -> list[Delivery]:
        """Subscribe once more and have this many messages delivered, all of them by default."""
        consumer = WalkConsumer(tag, credit)
        self.consumers.subscribe(self, consumer, own_channel)  # type: ignore[arg-type]
        number = self.channels[-1].number
        for _ in range(credit if arrives is None else arrives):
            self._tags[number] = self._tags.get(number, 0) + 1
            delivery = Delivery(self._tags[number], False, "", "q", Properties(), b"", "", tag, number)
            self.consumers.on_delivery(delivery)
        return list(consumer.deliveries)

    def end(self) -> list[str]:
        """Requeue the rest; return what was done, with how many consumers may be left after each step."""
        self.log.clear()
        steps: list[list[RequeueStep]] = []
        self.consumers.end(steps.append)
        for step in steps[0]:
            self.consumers.requeue(step, lambda left=step.left: self.log.append(f"left {left}"))  # type: ignore[misc]
        return self.log


def test_a_consumer_that_has_got_all_its_messages_is_cancelled_so_that_acks_make_room_for_no_others() -> None:
    scene = Scene(by_closing=True)
    scene.portion("a", 2)
    scene.portion("b", 3, arrives=1)
    assert scene.log == ["1: consume 2 as a", "1: cancel a", "1: consume 3 as b"]
    assert scene.progress == 3, "subscribed, complete, subscribed"


def test_below_4_0_the_rest_is_requeued_by_closing_the_channel() -> None:
    scene = Scene(by_closing=True)
    scene.portion("a", 1)
    scene.portion("b", 3, arrives=2)
    assert scene.end() == ["1: close", "left 0"]


def test_below_4_0_consumers_alone_on_their_channels_are_ended_one_by_one() -> None:
    scene = Scene(by_closing=True)
    for tag in "abc":
        scene.portion(tag, 1, own_channel=True)
    assert scene.end() == ["1: close", "left 2", "2: close", "left 1", "3: close", "left 0"]


def test_below_4_0_the_broker_has_all_acks_before_a_channel_is_closed() -> None:
    scene = Scene(by_closing=True)
    scene.consumers.acknowledge(scene.portion("a", 3)[:1])
    assert scene.end() == ["1: consume 1 as a last", "1: cancel a last", "1: close", "left 0"]


def test_from_4_0_on_each_consumer_has_its_nack_which_names_a_message_that_was_not_removed() -> None:
    scene = Scene(by_closing=False)
    first = scene.portion("a", 2)
    second = scene.portion("b", 2)
    third = scene.portion("c", 3, arrives=2)
    scene.consumers.acknowledge([*first, second[1]])
    # The last consumer could get another one: it is cancelled first, and the answer is behind what it has got.
    assert scene.end() == [
        "1: cancel c",
        "1: ask",
        "left 2",
        f"1: requeue up to {second[0].tag}",
        "left 1",
        f"1: requeue up to {third[1].tag}",
        "left 0",
        "1: close",
        "left 0",
    ]


def test_acks_are_few_and_none_is_sent_twice() -> None:
    scene = Scene(by_closing=False)
    got = scene.portion("a", 5)
    scene.log.clear()
    scene.consumers.acknowledge(got[:3])
    scene.consumers.acknowledge([*got[:3], got[4]])
    assert scene.log == ["1: ack up to 3", "1: ack 5"]


def test_a_walk_whose_channel_has_ended_acknowledges_nothing_and_has_nothing_to_requeue() -> None:
    scene = Scene(by_closing=False)
    got = scene.portion("a", 2)
    scene.channels[0].is_open = False
    scene.consumers._on_closed(scene.consumers._by_tag["a"], ConnectionEnded("gone"))
    assert not scene.consumers.acknowledge(got)
    assert isinstance(scene.errors[0], ConnectionEnded)
    assert scene.end() == []


def test_the_end_of_a_subscription_by_the_broker_is_an_error() -> None:
    scene = Scene(by_closing=True)
    scene.portion("a", 2, arrives=1)
    scene.channels[0].on_cancelled()
    assert isinstance(scene.errors[0], SubscriptionEnded)


def test_a_channel_that_opens_after_the_end_of_the_walk_is_closed() -> None:
    scene = Scene(by_closing=True)
    assert scene.end() == []
    scene.portion("a", 1, arrives=0)
    assert scene.log == ["1: close"]


@pytest.mark.parametrize(
    ("messages", "by_closing", "channel_max", "portions"),
    [
        (1, True, 2047, Portions(PORTION, own_channels=False)),
        (29 * PORTION, True, 2047, Portions(PORTION, own_channels=False)),
        (29 * PORTION + 1, True, 2047, Portions(PORTION, own_channels=True)),
        (10**7, False, 2047, Portions(PORTION, own_channels=False)),
        (10**7, True, 0, Portions(PORTION, own_channels=True)),
        (10**6, True, 12, Portions(MAX_PREFETCH, own_channels=True)),
        (10**6, True, 1, Portions(MAX_PREFETCH, own_channels=True)),
    ],
)
def test_a_long_queue_has_a_channel_for_each_consumer_where_closing_requeues(
    messages: int, by_closing: bool, channel_max: int, portions: Portions
) -> None:
    assert Portions.of(messages, by_closing, channel_max) == portions
