"""An open channel: publishes, acknowledges and subscribes, in the I/O thread of its connection."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from pika import exceptions

from amqpworker.broker.amqp.encode import encode_ack, encode_nack
from amqpworker.broker.labels import process_name
from amqpworker.broker.pika_connection import ChannelListener, PikaConnection
from amqpworker.model.message import REPLY_TO

MAX_PREFETCH = 65_535
# RabbitMQ waits 250 ms for the leader of a queue, then it reports no messages and no consumers (3.10 to 4.3). So an answer that
# took about this many seconds is not reliable.
UNRELIABLE_AFTER = 0.2

OnClosed: TypeAlias = Callable[[BaseException], None]


@dataclass(frozen=True, slots=True)
class QueueState:
    """
    The broker's view of a queue: `ready` messages (None if there is no such queue) and `consumers`.

    If `is_unreliable`, both may be 0 because the leader of the queue has not responded.
    """

    ready: int | None
    consumers: int
    is_unreliable: bool = False


class Channel:
    """An open channel."""

    def __init__(self, connection: PikaConnection, channel: Any, listener: ChannelListener) -> None:
        self.connection = connection
        self.pika = channel
        self.number: int = channel.channel_number
        self._settlements: list[bytes] = []
        connection.listeners[self.number] = listener

    @property
    def is_open(self) -> bool:
        """Whether frames can be sent on it."""
        return bool(self.pika.is_open)

    def publish(self, frames: list[bytes]) -> None:
        """Write encoded publications in one piece."""
        self.connection.write(b"".join(frames))

    def ack(self, tag: int, multiple: bool) -> None:
        """Acknowledge, at the next `flush`."""
        self._settlements.append(encode_ack(self.number, tag, multiple))

    def requeue(self, tag: int) -> None:
        """Requeue one delivery, at the next `flush`; from RabbitMQ 4.3 on a nack does not count as a delivery."""
        self._settlements.append(encode_nack(self.number, tag, False, True))

    def flush(self) -> None:
        """Write the gathered acknowledgements in one piece."""
        if self._settlements:
            data = b"".join(self._settlements)
            self._settlements.clear()
            self.connection.write(data)

    def requeue_all(self) -> None:
        """Requeue all deliveries that are not settled, at once."""
        self.flush()
        self.connection.write(encode_nack(self.number, 0, True, True))

    def ask(self, queue: str, on_answer: Callable[[QueueState], None]) -> None:
        """Ask for the state of a queue; if it does not exist, the broker closes the channel instead."""
        sent_at = time.monotonic()

        def on_declared(frame: Any) -> None:
            is_unreliable = time.monotonic() >= sent_at + UNRELIABLE_AFTER
            on_answer(QueueState(frame.method.message_count, frame.method.consumer_count, is_unreliable))

        self.pika.queue_declare(queue, passive=True, callback=on_declared)

    def limit_all(self) -> None:
        """
        Set a limit for all consumers of the channel together, larger than they can reach: it limits nothing.

        Quorum queues do not support such a limit: a broker that subscribes this channel by itself to a queue that was
        declared again cannot, and cancels the consumer. Only after `consume`, which the broker would refuse as well.
        """
        self.pika.basic_qos(prefetch_count=MAX_PREFETCH, global_qos=True)

    def limit_none(self) -> None:
        """Remove the limit of `limit_all`, before another `consume`."""
        self.pika.basic_qos(prefetch_count=0, global_qos=True)

    def consume(
        self,
        queue: str,
        prefetch: int,
        tag: str,
        on_consumed: Callable[[], None],
        arguments: dict[str, int] | None = None,
    ) -> None:
        """Subscribe to a queue as the consumer `tag`; `on_consumed` is called once the broker has confirmed."""

        def on_limited(_: object) -> None:
            self.pika.basic_consume(
                queue, _not_called, consumer_tag=tag, arguments=arguments, callback=lambda _: on_consumed()
            )

        self.pika.basic_qos(prefetch_count=prefetch, callback=on_limited)

    def consume_replies(self, on_consumed: Callable[[], None]) -> None:
        """Subscribe to the replies to our calls: without acknowledgement, as direct reply-to requires."""
        tag = f"{process_name()} replies"
        self.pika.basic_consume(
            REPLY_TO, _not_called, auto_ack=True, consumer_tag=tag, callback=lambda _: on_consumed()
        )

    def select_confirms(self, on_selected: Callable[[], None]) -> None:
        """Have the broker confirm every publication from now on."""
        self.pika.confirm_delivery(_not_called, callback=lambda _: on_selected())

    def on_cancel(self, on_cancelled: Callable[[], None]) -> None:
        """Call `on_cancelled` if the broker cancels the subscription: the queue was deleted, or an ack timed out."""
        self.pika.add_on_cancel_callback(lambda _: on_cancelled())

    def cancel(self, consumer_tag: str, on_cancelled: Callable[[], None]) -> None:
        """Cancel a subscription; deliveries may arrive until `on_cancelled` is called."""
        self.pika.basic_cancel(consumer_tag, callback=lambda _: on_cancelled())

    def close(self) -> None:
        """Close the channel; the broker requeues what was not settled on it."""
        self.connection.listeners.pop(self.number, None)
        if self.pika.is_open:
            self.pika.close()


def _not_called(*_: Any) -> None:
    """The connection gives contents and confirms to the listener of their channel instead."""


def open_channel(
    connection: PikaConnection, listener: ChannelListener, on_opened: Callable[[Channel], None], on_closed: OnClosed
) -> None:
    """Open a channel; then `on_opened` is called, and `on_closed` with the reason when it is closed."""

    def on_open(channel: Any) -> None:
        on_opened(Channel(connection, channel, listener))

    def on_close(channel: Any, reason: BaseException) -> None:
        connection.listeners.pop(channel.channel_number, None)
        connection.release_channel_number(channel.channel_number)
        on_closed(reason)

    try:
        channel = connection.channel(channel_number=connection.take_channel_number(), on_open_callback=on_open)
    except exceptions.AMQPError as error:
        on_closed(error)
        return
    channel.add_on_close_callback(on_close)


class OwnChannel:
    """
    The channel of one user, opened when it is first used; after it was closed or left, the next use opens another.

    `on_closed` is called when it is closed by the broker or cannot be opened, not when it was left.
    """

    def __init__(self, connection: PikaConnection, on_closed: OnClosed) -> None:
        self._connection = connection
        self._on_closed = on_closed
        self._channel: Channel | None = None
        # Counts the channels, so that callbacks of one that was left are ignored.
        self._count = 0

    def use(self, on_open: Callable[[Channel], None]) -> None:
        """Call `on_open` with the channel, at once if it is open."""
        if self._channel is not None:
            on_open(self._channel)
            return
        self._count += 1
        count = self._count

        def on_opened(channel: Channel) -> None:
            if count == self._count:
                self._channel = channel
                on_open(channel)
            else:
                channel.close()

        def on_closed(error: BaseException) -> None:
            if count == self._count:
                self._channel = None
                self._on_closed(error)

        open_channel(self._connection, ChannelListener(), on_opened, on_closed)

    def unless_left(self, callback: Callable[[Any], None]) -> Callable[[Any], None]:
        """Return a callback of the present channel that does nothing once the channel was left."""
        count = self._count
        return lambda answer: callback(answer) if count == self._count else None

    def leave(self) -> None:
        """Close the channel without waiting for anything that was asked on it."""
        self._count += 1
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()
