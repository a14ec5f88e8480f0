"""
A channel, by our codec or by pika's public methods: the same verbs for both.

Decides nothing about messages. All of it runs in the I/O thread of its connection, `prepare` aside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import pika
from pika import exceptions

from amqpworker.broker.amqp.encode import encode_ack, encode_nack, encode_publish
from amqpworker.broker.amqp.events import ReturnedMessage
from amqpworker.broker.amqp.table_decode import replaced
from amqpworker.broker.labels import process_name
from amqpworker.broker.pika_connection import ChannelListener, PikaConnection, PublicConnection
from amqpworker.log.logger import get_logger
from amqpworker.model.message import PROPERTY_NAMES, REPLY_TO, Delivery, Properties, Publication

__all__ = ["Channel", "Closed", "Prepared", "open_channel", "prepare"]

log = get_logger(__name__)

MOST_PREFETCH = 65_535

Closed: TypeAlias = Callable[[BaseException], None]


@dataclass(slots=True)
class Prepared:
    """A publication and its frames, for the channel with this number and frames of up to `frame_max` bytes."""

    publication: Publication
    data: bytes
    frame_max: int
    channel: int = 1


def prepare(publication: Publication, frame_max: int, own_codec: bool = True, channel: int = 1) -> Prepared:
    """
    Marshal a publication, for a channel that may not be open yet; where pika will write it, see to it that pika can, too.

    Raises:
        ValueError: a property or header has a value that cannot be carried; the text names it.
    """
    if not own_codec:
        for name, value in (publication.properties.headers or {}).items():
            check_for_pika(name, value)
    return Prepared(publication, encode_publish(publication, channel, frame_max), frame_max, channel)


class Channel:
    """An open channel that writes by our codec."""

    def __init__(self, connection: PikaConnection, channel: Any, sink: ChannelListener) -> None:
        self.connection = connection
        self.pika = channel
        self.number: int = channel.channel_number
        self._settlements: list[bytes] = []
        connection.sinks[self.number] = sink

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
        self.connection.sinks.pop(self.number, None)
        if self.pika.is_open:
            self.pika.close()

    def _on_message(self, *_: Any) -> None:
        """Contents do not come this way: the connection gives them to the sink."""

    def _on_confirm(self, _frame: Any) -> None:
        """Confirms do not come this way either."""


class PublicChannel(Channel):
    """An open channel that goes by pika's public methods alone."""

    def __init__(self, connection: PublicConnection, channel: Any, sink: ChannelListener) -> None:
        self.connection = connection
        self.pika = channel
        self.number = channel.channel_number
        self.sink = sink
        self.pika.add_on_return_callback(self._on_return)

    def publish(self, batch: Iterable[Prepared]) -> None:
        """Publish one by one."""
        for one in batch:
            what = one.publication
            self.pika.basic_publish(
                what.exchange, what.routing_key, what.body, to_pika(what.properties), mandatory=what.mandatory
            )

    def ack(self, tag: int, multiple: bool) -> None:
        """Acknowledge at once."""
        if self.pika.is_open:
            self.pika.basic_ack(tag, multiple)

    def requeue(self, tag: int) -> None:
        """Requeue at once."""
        if self.pika.is_open:
            self.pika.basic_nack(tag, requeue=True)

    def flush(self) -> None:
        """Nothing gathers here."""

    def requeue_all(self) -> None:
        """Requeue all deliveries that are not settled, at once."""
        if self.pika.is_open:
            self.pika.basic_nack(0, multiple=True, requeue=True)

    def _on_message(self, _channel: Any, method: Any, properties: Any, body: bytes) -> None:
        ours, problem = from_pika(properties)
        route = (method.delivery_tag, method.redelivered, method.exchange, method.routing_key)
        self.sink.on_delivery(Delivery(*route, ours, body, problem))

    def _on_confirm(self, frame: Any) -> None:
        method = frame.method
        self.sink.on_confirm(method.delivery_tag, method.multiple, isinstance(method, pika.spec.Basic.Ack))

    def _on_return(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        self.sink.on_return(
            ReturnedMessage(
                channel.channel_number,
                method.reply_code,
                method.reply_text,
                method.exchange,
                method.routing_key,
                from_pika(properties)[0],
                body,
            )
        )


def open_channel(
    connection: PublicConnection, sink: ChannelListener, opened: Callable[[Channel], None], closed: Closed
) -> None:
    """Open a channel; then `opened` is called, and `closed` when it ends, with the reason."""

    def on_open(channel: Any) -> None:
        kind = Channel if isinstance(connection, PikaConnection) else PublicChannel
        opened(kind(connection, channel, sink))

    def on_close(channel: Any, reason: BaseException) -> None:
        connection.sinks.pop(channel.channel_number, None)
        connection.give_number(channel.channel_number)
        closed(reason)

    try:
        channel = connection.channel(channel_number=connection.take_number(), on_open_callback=on_open)
    except exceptions.AMQPError as error:
        closed(error)
        return
    channel.add_on_close_callback(on_close)


def check_for_pika(name: str, value: Any) -> None:
    """
    Refuse a header that pika cannot write, such as a float: later it would fail in the I/O thread, for all in a batch.

    Raises:
        ValueError: it cannot; the text names the header.
    """
    match value:
        case float():
            raise ValueError(f"header {name!r} is a float, which the codec 'pika' cannot write: take the codec 'own'")
        case dict():
            for inner in value.values():
                check_for_pika(name, inner)
        case list() | tuple():
            for inner in value:
                check_for_pika(name, inner)


def to_pika(properties: Properties) -> pika.BasicProperties:
    """Return pika's form of the properties."""
    present = properties.present()
    if "headers" in present:
        present["headers"] = listed(present["headers"])
    return pika.BasicProperties(**present)


def listed(value: Any) -> Any:
    """Return tuples as lists, which alone pika can write, in tables too."""
    if isinstance(value, dict):
        return {name: listed(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [listed(inner) for inner in value]
    return value


def from_pika(properties: pika.BasicProperties) -> tuple[Properties, str]:
    """Return our form of the properties, and the first name in them that is not UTF-8, which pika leaves as bytes."""
    new, problem = Properties(), ""
    for name in PROPERTY_NAMES:
        value = getattr(properties, name)
        if isinstance(value, bytes):
            value, problem = replaced(value), problem or f"property {name} is not UTF-8"
        elif isinstance(value, dict):
            value, trouble = plain(value)
            problem = problem or trouble
        setattr(new, name, value)
    return new, problem


def plain(value: Any) -> tuple[Any, str]:
    """Return a header's value with pika's `long` as an int, in lists and tables too, and what is wrong with it."""
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value), ""
    if isinstance(value, list):
        items = [plain(one) for one in value]
        return [item for item, _ in items], next((trouble for _, trouble in items if trouble), "")
    if not isinstance(value, dict):
        return value, ""
    table: dict[str, Any] = {}
    problem = ""
    for name, held in value.items():
        readable = replaced(name) if isinstance(name, bytes) else name
        if readable is not name:
            problem = problem or f"the name of header {readable!r} is not UTF-8"
        table[readable], trouble = plain(held)
        problem = problem or trouble
    return table, problem
