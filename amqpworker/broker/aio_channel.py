"""A channel on aio-pika's connection, by frames of our own: aiormq does not see it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pamqp.frame
from pamqp import commands

from amqpworker.broker.connection import (
    ChannelClosedByBroker,
    ChannelClosedByUs,
    ChannelError,
    ChannelListener,
    OnClosed,
    QueueState,
)
from amqpworker.broker.labels import replies_tag
from amqpworker.model.message import REPLY_TO
from amqpworker.routing.topology import Binding, Exchange, Part, Queue, Unbinding

if TYPE_CHECKING:
    from amqpworker.broker.aio_connection import AioConnection


class AioChannel:
    """An open channel, or one that is being opened: `on_opened` is called then, and `on_closed` once it is closed."""

    def __init__(
        self,
        connection: AioConnection,
        number: int,
        listener: ChannelListener,
        on_opened: Callable[[AioChannel], None],
        on_closed: OnClosed,
    ) -> None:
        self.connection = connection
        self.number = number
        self.on_closed = on_closed
        self.is_open = False
        self._closing = False
        connection.listeners[number] = listener
        # The broker answers the requests of a channel in their order.
        self._answers: deque[Callable[[Any], None]] = deque()

        def opened(_: Any) -> None:
            self.is_open = True
            on_opened(self)

        self._request(commands.Channel.Open(), opened)

    def _request(self, command: Any, on_answer: Callable[[Any], None]) -> None:
        self._answers.append(on_answer)
        self._write(command)

    def _write(self, command: Any) -> None:
        self.connection.write(pamqp.frame.marshal(command, self.number))

    def publish(self, frames: list[bytes]) -> None:
        """Write encoded publications in one piece."""
        self.connection.write(b"".join(frames))

    def select_confirms(self, on_selected: Callable[[], None]) -> None:
        """Have the broker confirm every publication from now on."""
        self._request(commands.Confirm.Select(), lambda _: on_selected())

    def consume_replies(self, on_consumed: Callable[[], None]) -> None:
        """Subscribe to the replies to our calls: without acknowledgement, as direct reply-to requires."""
        command = commands.Basic.Consume(queue=REPLY_TO, consumer_tag=replies_tag(), no_ack=True)
        self._request(command, lambda _: on_consumed())

    def declare(self, part: Part, on_declared: Callable[[], None] | None) -> None:
        """Declare one part of a topology, or remove a binding; without `on_declared` the broker's answer is ignored."""
        nowait = on_declared is None
        arguments = {} if isinstance(part, Unbinding) else dict(part.arguments)
        command: Any
        match part:
            case Exchange():
                command = commands.Exchange.Declare(
                    exchange=part.name, exchange_type=part.type, durable=True, nowait=nowait, arguments=arguments
                )
            case Queue():
                command = commands.Queue.Declare(queue=part.name, durable=True, nowait=nowait, arguments=arguments)
            case Binding():
                command = commands.Queue.Bind(
                    queue=part.queue,
                    exchange=part.source,
                    routing_key=part.routing_key,
                    nowait=nowait,
                    arguments=arguments,
                )
            case Unbinding():
                # The broker always replies, even if the binding does not exist.
                nowait = False
                command = commands.Queue.Unbind(
                    queue=part.queue, exchange=part.source, routing_key=part.routing_key, arguments=arguments
                )
        if nowait:
            self._write(command)
        else:
            self._request(command, lambda _: None if on_declared is None else on_declared())

    def ask(self, queue: str, on_answer: Callable[[QueueState], None]) -> None:
        """Ask for the state of a queue; if it does not exist, the broker closes the channel instead."""
        asked_at = time.monotonic()

        def on_declared(frame: Any) -> None:
            on_answer(QueueState.from_answer(frame.message_count, frame.consumer_count, asked_at))

        self._request(commands.Queue.Declare(queue=queue, passive=True), on_declared)

    def close(self) -> None:
        """Close the channel; its number is free once the broker has confirmed that."""
        if self._closing:
            return
        self._closing = True
        self.is_open = False
        self.connection.listeners.pop(self.number, None)
        self._answers.clear()
        self._write(commands.Channel.Close(reply_code=200, reply_text="", class_id=0, method_id=0))

    def end(self, error: ChannelError) -> None:
        """Report that it is closed, and why."""
        self.is_open = False
        self._answers.clear()
        self.on_closed(error)

    # ---- what arrives -----------------------------------------------------------------------------------------------

    def on_frame(self, raw: bytes) -> None:
        """Take a frame that is neither content nor a confirm."""
        _, _, frame = pamqp.frame.unmarshal(raw)
        match frame:
            case commands.Channel.Close():
                self._write(commands.Channel.CloseOk())
                if not self._closing:  # else the answer to our own close is still on its way
                    self.connection.forget_channel(self)
                    self.end(ChannelClosedByBroker(frame.reply_code or 0, frame.reply_text))
            case commands.Channel.CloseOk():
                self.connection.forget_channel(self)
                self.end(ChannelClosedByUs())
            case commands.Basic.Cancel():
                pass  # of the consumer of replies: its queue ends with the channel only
            case _:
                if self._answers and not self._closing:
                    self._answers.popleft()(frame)
