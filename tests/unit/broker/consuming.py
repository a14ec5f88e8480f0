"""A consumer without a broker: its channels are opened, subscribed and cancelled when the test decides so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amqpworker.broker.address import addresses
from amqpworker.broker.connection import ChannelListener, OnClosed
from amqpworker.broker.consumer import Consumer
from amqpworker.broker.consumer_channel import ConsumerChannel, Subscription
from amqpworker.settings import Settings
from tests.unit.worker.settling import IgnoringReceiver

WORK = Subscription("work", 10)


class SlowChannel:
    """A channel that is opened and subscribed when the test decides so."""

    def __init__(self, opened: Callable[[Any], None], closed: OnClosed) -> None:
        self._opened = opened
        self.closed = closed
        self.number = 1
        self.is_open = True
        self.steps: list[str] = []
        self.tags: list[str] = []
        self.prefetches: list[int] = []
        self.arguments: dict[str, int] = {}
        self.consumed: Callable[[], None] = lambda: None
        self.cancelled: Callable[[], None] = lambda: None
        self.cancelled_by_broker: Callable[[], None] = lambda: None

    def open(self) -> None:
        self._opened(self)

    def on_cancel(self, callback: Callable[[], None]) -> None:
        self.cancelled_by_broker = callback

    def set_shared_limit(self) -> None:
        """Only real brokers can show its purpose."""

    def flush(self) -> None:
        self.steps.append("flush")

    def ack(self, tag: int, multiple: bool) -> None:
        """Take it."""

    def remove_shared_limit(self) -> None:
        self.steps.append("remove_shared_limit")

    def consume(
        self, _queue: str, prefetch: int, tag: str, consumed: Callable[[], None], arguments: dict[str, int]
    ) -> None:
        self.steps.append("consume")
        self.tags.append(tag)
        self.prefetches.append(prefetch)
        self.arguments = arguments
        self.consumed = consumed

    def cancel(self, tag: str, cancelled: Callable[[], None]) -> None:
        self.steps.append("cancel")
        self.tags.remove(tag)
        self.cancelled = cancelled

    def close(self) -> None:
        self.steps.append("close")
        self.is_open = False


class SlowConnection:
    """A connection that keeps the channels which are asked for."""

    is_open = True

    def __init__(self, version: str = "4.3.6") -> None:
        self.server_properties = {"version": version}
        self.channels: list[SlowChannel] = []

    def open_channel(self, _: ChannelListener, on_opened: Callable[[Any], None], on_closed: OnClosed) -> None:
        self.channels.append(SlowChannel(on_opened, on_closed))


class Late(IgnoringReceiver):
    """A receiver that keeps for which timeouts it was to name what is late, and whose consumer was replaced."""

    def __init__(self) -> None:
        self.late_after: list[float] = []
        self.replaced: list[str] = []

    def on_replacing(self, queue: str) -> None:
        self.replaced.append(queue)

    def on_ack_timeout(self, _channel: ConsumerChannel, timeout: float, _reason: str) -> None:
        self.late_after.append(timeout)


class Wire(SlowConnection):
    """A connection of which parts have come."""

    def __init__(self, version: str) -> None:
        super().__init__(version)
        self.decoder = self
        self.has_partial = False
        self.own_part = False

    def has_partial_on(self, _channel: int) -> bool:
        return self.own_part


def consuming(version: str = "4.3.6") -> tuple[Consumer, Late, Wire, list[SlowChannel]]:
    receiver, wire = Late(), Wire(version)
    channels = wire.channels
    consumer = Consumer(addresses("amqp://127.0.0.1:1"), Settings(), [WORK], receiver)
    consumer.on_opened(wire)  # type: ignore[arg-type]
    channels[0].open()
    channels[0].consumed()
    return consumer, receiver, wire, channels
