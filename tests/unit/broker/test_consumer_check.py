"""When the broker is asked for the state of our subscriptions."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from amqpworker.broker.connection import ChannelClosedByBroker, ChannelListener, OnClosed, QueueState
from amqpworker.broker.consumer_check import SubscriptionCheck

CLOSED = ChannelClosedByBroker(541, "INTERNAL_ERROR")


class CheckChannel:
    """A channel; the broker answers once the test has it."""

    def __init__(self, close_by_broker: OnClosed) -> None:
        self.close_by_broker = close_by_broker
        self.asked: list[str] = []
        self.answer: Callable[[QueueState], None] = lambda _: None

    def ask(self, queue: str, on_answer: Callable[[QueueState], None]) -> None:
        self.asked.append(queue)
        self.answer = on_answer


class CheckedConsumer:
    """A consumer of one queue, and its connection: a test opens the channels, and lets time pass for `call_later`."""

    is_open = True

    def __init__(self) -> None:
        self.keeper: Any = self
        self.liveness = SimpleNamespace(expect=lambda _: None)
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

    def open_channel(self, _: ChannelListener, on_opened: Callable[[CheckChannel], None], on_closed: OnClosed) -> None:
        channel = CheckChannel(on_closed)
        self.channels.append(channel)
        self.open = lambda: on_opened(channel)

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
    channel.answer(QueueState(0, 1))
    assert len(consumer.checked) == 1
    channel.close_by_broker(CLOSED)
    assert len(consumer.checked) == 1
    assert len(consumer.timers) == 1


def test_checks_continue_after_a_channel_that_was_closed_instead_of_an_answer() -> None:
    consumer: Any = CheckedConsumer()
    SubscriptionCheck(consumer, consumer).start()
    consumer.pass_time()
    consumer.open()
    consumer.channels[0].close_by_broker(CLOSED)
    assert consumer.checked == [QueueState(None, 0)]
    consumer.pass_time()
    consumer.open()
    assert consumer.channels[1].asked == ["work"]
