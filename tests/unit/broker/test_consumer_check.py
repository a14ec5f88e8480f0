"""When the broker is asked for the state of our subscriptions."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from pika.exceptions import ChannelClosedByBroker

from amqpworker.broker.channel import QueueState
from amqpworker.broker.consumer_check import SubscriptionCheck
from amqpworker.broker.pika_connection import ChannelListener

CLOSED = ChannelClosedByBroker(541, "INTERNAL_ERROR")


class CheckChannel:
    """A channel as pika's; the broker answers once the test has it."""

    channel_number = 1
    is_open = True

    def __init__(self) -> None:
        self.close_by_broker: Callable[[Any, BaseException], None] = lambda *_: None
        self.asked: list[str] = []
        self.answer: Callable[[Any], None] = lambda _: None

    def add_on_close_callback(self, callback: Callable[[Any, BaseException], None]) -> None:
        self.close_by_broker = callback

    def queue_declare(self, queue: str, passive: bool, callback: Callable[[Any], None]) -> None:
        assert passive
        self.asked.append(queue)
        self.answer = callback


class CheckedConsumer:
    """A consumer of one queue, and its connection: a test opens the channels, and lets time pass for `call_later`."""

    is_open = True

    def __init__(self) -> None:
        self.io: Any = self
        self.liveness = SimpleNamespace(expect=lambda _: None)
        self.listeners: dict[int, ChannelListener] = {}
        self.channels: list[CheckChannel] = []
        self.checked: list[QueueState] = []
        self.timers: list[Callable[[], None]] = []
        self.open: Callable[[], None] = lambda: None

    def call_later(self, _delay: float, callback: Callable[[], None]) -> Callable[[], None]:
        self.timers.append(callback)
        return lambda: self.timers.remove(callback) if callback in self.timers else None

    def pass_time(self) -> None:
        timers, self.timers = self.timers, []
        for callback in timers:
            callback()

    def take_channel_number(self) -> int:
        return 1

    def release_channel_number(self, _: int) -> None:
        """Take it back."""

    def channel(self, channel_number: int, on_open_callback: Callable[[Any], None]) -> CheckChannel:
        assert channel_number == 1
        channel = CheckChannel()
        self.channels.append(channel)
        self.open = lambda: on_open_callback(channel)
        return channel

    def subscribed(self) -> list[str]:
        return ["work"]

    def on_checked(self, queue: str, state: QueueState) -> None:
        assert queue == "work"
        self.checked.append(state)


def test_a_channel_that_the_broker_closes_between_two_checks_does_not_double_the_later_ones() -> None:
    consumer: Any = CheckedConsumer()
    SubscriptionCheck(consumer, consumer).start()
    consumer.pass_time()
    consumer.open()
    (channel,) = consumer.channels
    channel.answer(SimpleNamespace(method=SimpleNamespace(message_count=0, consumer_count=1)))
    assert len(consumer.checked) == 1
    channel.close_by_broker(channel, CLOSED)
    assert len(consumer.checked) == 1
    assert len(consumer.timers) == 1


def test_checks_continue_after_a_channel_that_was_closed_instead_of_an_answer() -> None:
    consumer: Any = CheckedConsumer()
    SubscriptionCheck(consumer, consumer).start()
    consumer.pass_time()
    consumer.open()
    consumer.channels[0].close_by_broker(consumer.channels[0], CLOSED)
    assert consumer.checked == [QueueState(None, 0)]
    consumer.pass_time()
    consumer.open()
    assert consumer.channels[1].asked == ["work"]
