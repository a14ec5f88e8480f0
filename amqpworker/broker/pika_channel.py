"""An open channel of pika: publishes, acknowledges and subscribes, in the I/O thread of its connection."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from amqpworker.broker.amqp.encode import encode_ack, encode_nack
from amqpworker.broker.connection import ChannelListener, QueueState
from amqpworker.broker.labels import replies_tag
from amqpworker.model.message import REPLY_TO
from amqpworker.routing.topology import Binding, Exchange, Part, Queue, Unbinding

if TYPE_CHECKING:
    from amqpworker.broker.pika_connection import PikaConnection

MAX_PREFETCH = 65_535


class PikaChannel:
    """An open channel of pika's."""

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

    def requeue_up_to(self, tag: int) -> None:
        """Requeue all deliveries up to this one that are not settled, at once; this one must not be settled."""
        self.flush()
        self.connection.write(encode_nack(self.number, tag, True, True))

    def ask(self, queue: str, on_answer: Callable[[QueueState], None]) -> None:
        """Ask for the state of a queue; if it does not exist, the broker closes the channel instead."""
        asked_at = time.monotonic()

        def on_declared(frame: Any) -> None:
            on_answer(QueueState.from_answer(frame.method.message_count, frame.method.consumer_count, asked_at))

        self.pika.queue_declare(queue, passive=True, callback=on_declared)

    def declare(self, part: Part, on_declared: Callable[[], None] | None) -> None:
        """Declare one part of a topology, or remove a binding; without `on_declared` the broker's answer is ignored."""
        callback = None if on_declared is None else lambda _: on_declared()
        match part:
            case Exchange():
                self.pika.exchange_declare(
                    part.name, part.type, durable=True, arguments=dict(part.arguments), callback=callback
                )
            case Queue():
                self.pika.queue_declare(part.name, durable=True, arguments=dict(part.arguments), callback=callback)
            case Binding():
                arguments = dict(part.arguments)
                self.pika.queue_bind(part.queue, part.source, part.routing_key, arguments, callback=callback)
            case Unbinding():
                # The broker always replies, even if the binding does not exist.
                self.pika.queue_unbind(part.queue, part.source, part.routing_key, callback=callback)

    def set_shared_limit(self) -> None:
        """
        Set a limit for all consumers of the channel together, larger than they can reach: it limits nothing.

        Quorum queues do not support such a limit: a broker that subscribes this channel by itself to a queue that was
        declared again cannot, and cancels the consumer. Only after `consume`, which the broker would refuse as well.
        """
        self.pika.basic_qos(prefetch_count=MAX_PREFETCH, global_qos=True)

    def remove_shared_limit(self) -> None:
        """Remove the limit of `set_shared_limit`, before another `consume`."""
        self.pika.basic_qos(prefetch_count=0, global_qos=True)

    def consume(
        self,
        queue: str,
        prefetch: int,
        tag: str,
        on_consumed: Callable[[], None],
        arguments: Mapping[str, int | str] | None = None,
    ) -> None:
        """Subscribe to a queue as the consumer `tag`; `on_consumed` is called once the broker has confirmed."""

        def on_limited(_: object) -> None:
            self.pika.basic_consume(
                queue,
                _not_called,
                consumer_tag=tag,
                arguments=None if arguments is None else dict(arguments),
                callback=lambda _: on_consumed(),
            )

        self.pika.basic_qos(prefetch_count=prefetch, callback=on_limited)

    def consume_replies(self, on_consumed: Callable[[], None]) -> None:
        """Subscribe to the replies to our calls: without acknowledgement, as direct reply-to requires."""
        self.pika.basic_consume(
            REPLY_TO, _not_called, auto_ack=True, consumer_tag=replies_tag(), callback=lambda _: on_consumed()
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
