"""
An open channel: publishes, acknowledges and subscribes.

Decides nothing about messages. Everything except `prepare` runs in the I/O thread of its connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from pika import exceptions

from amqpworker.broker.amqp.encode import encode_ack, encode_nack, encode_publish
from amqpworker.broker.labels import process_name
from amqpworker.broker.pika_connection import ChannelListener, PikaConnection
from amqpworker.model.message import REPLY_TO, Publication

__all__ = ["Channel", "Closed", "Prepared", "open_channel", "prepare"]

MOST_PREFETCH = 65_535

Closed: TypeAlias = Callable[[BaseException], None]


@dataclass(slots=True)
class Prepared:
    """A publication and its frames, for the channel with this number and frames of up to `frame_max` bytes."""

    publication: Publication
    data: bytes
    frame_max: int
    channel: int = 1


def prepare(publication: Publication, frame_max: int, channel: int = 1) -> Prepared:
    """
    Marshal a publication for a channel that may not be open yet.

    Raises:
        ValueError: a property or header has a value that cannot be carried; the text names it.
    """
    return Prepared(publication, encode_publish(publication, channel, frame_max), frame_max, channel)


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
        """Whether frames can still be sent on it."""
        return bool(self.pika.is_open)

    def publish(self, batch: Iterable[Prepared]) -> None:
        """Put publications on the wire in one write."""
        self.connection.write(b"".join([one.data for one in batch]))

    def ack(self, tag: int, multiple: bool) -> None:
        """Acknowledge, at the next `flush`."""
        self._settlements.append(encode_ack(self.number, tag, multiple))

    def requeue(self, tag: int) -> None:
        """Requeue one delivery, at the next `flush`; from RabbitMQ 4.3 on a nack does not count as a delivery."""
        self._settlements.append(encode_nack(self.number, tag, False, True))

    def flush(self) -> None:
        """Put the gathered acknowledgements on the wire in one write."""
        if self._settlements:
            data = b"".join(self._settlements)
            self._settlements.clear()
            self.connection.write(data)

    def requeue_all(self) -> None:
        """Requeue all deliveries that are not settled, at once."""
        self.flush()
        self.connection.write(encode_nack(self.number, 0, True, True))

    def count(self, queue: str, counted: Callable[[int], None]) -> None:
        """Ask how many messages are ready in a queue."""
        self.pika.queue_declare(queue, passive=True, callback=lambda frame: counted(frame.method.message_count))

    def limit_all(self) -> None:
        """
        Set a limit for all consumers of the channel, larger than they can have together: it limits nothing.

        Quorum queues know no such limit: a broker that wants to subscribe by itself, on this channel, to a queue that was
        made again cannot, and cancels the consumer. Only after `consume`, which the broker would refuse as well.
        """
        self.pika.basic_qos(prefetch_count=MOST_PREFETCH, global_qos=True)

    def limit_none(self) -> None:
        """Lift what `limit_all` has set, before another `consume`."""
        self.pika.basic_qos(prefetch_count=0, global_qos=True)

    def consume(
        self,
        queue: str,
        prefetch: int,
        tag: str,
        consumed: Callable[[], None],
        arguments: dict[str, int] | None = None,
    ) -> None:
        """Subscribe to a queue as the consumer `tag`; `consumed` is called once the broker agreed."""
        self.pika.basic_qos(
            prefetch_count=prefetch, callback=lambda _: self._consume(queue, tag, consumed, arguments=arguments)
        )

    def _consume(
        self,
        queue: str,
        tag: str,
        consumed: Callable[[], None],
        no_ack: bool = False,
        arguments: dict[str, int] | None = None,
    ) -> None:
        self.pika.basic_consume(
            queue,
            self._on_message,
            auto_ack=no_ack,
            consumer_tag=tag,
            arguments=arguments,
            callback=lambda _: consumed(),
        )

    def consume_replies(self, consumed: Callable[[], None]) -> None:
        """Subscribe to the answers to our calls: without acknowledgement, as direct reply-to has it."""
        self._consume(REPLY_TO, f"{process_name()} replies", consumed, no_ack=True)

    def select_confirms(self, selected: Callable[[], None]) -> None:
        """Have the broker confirm every publication from now on."""
        self.pika.confirm_delivery(self._on_confirm, callback=lambda _: selected())

    def on_cancel(self, cancelled: Callable[[], None]) -> None:
        """Call `cancelled` when the broker ends the subscription: its queue is gone, or the ack timeout passed."""
        self.pika.add_on_cancel_callback(lambda _: cancelled())

    def cancel(self, consumer_tag: str, cancelled: Callable[[], None]) -> None:
        """End a subscription; deliveries may come until `cancelled`."""
        self.pika.basic_cancel(consumer_tag, callback=lambda _: cancelled())

    def close(self) -> None:
        """Close the channel; the broker requeues what was not settled on it."""
        self.connection.listeners.pop(self.number, None)
        if self.pika.is_open:
            self.pika.close()

    def _on_message(self, *_: Any) -> None:
        """Contents do not come this way: the connection gives them to the listener."""

    def _on_confirm(self, _frame: Any) -> None:
        """Confirms do not come this way either."""


def open_channel(
    connection: PikaConnection, listener: ChannelListener, opened: Callable[[Channel], None], closed: Closed
) -> None:
    """Open a channel; then `opened` is called, and `closed` when it ends, with the reason."""

    def on_open(channel: Any) -> None:
        opened(Channel(connection, channel, listener))

    def on_close(channel: Any, reason: BaseException) -> None:
        connection.listeners.pop(channel.channel_number, None)
        connection.release_channel_number(channel.channel_number)
        closed(reason)

    try:
        channel = connection.channel(channel_number=connection.take_channel_number(), on_open_callback=on_open)
    except exceptions.AMQPError as error:
        closed(error)
        return
    channel.add_on_close_callback(on_close)
