"""What tests of every part need: waiting for something to come true, and a bare pika to look from outside."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError, ChannelClosedByBroker, UnroutableError

from amqpworker.testing import wait_until
from tests.nodes import Node, NodeApi

__all__ = [
    "Broker",
    "RawMessage",
    "milliseconds",
    "raw_channel",
    "raw_get",
    "raw_publish",
    "wait_until",
]


def in_child(work: Callable[[], object]) -> bool:
    """Return whether `work` returns something true in a forked child."""
    child = os.fork()
    if child == 0:
        right = False
        try:
            right = bool(work())
        finally:
            os._exit(0 if right else 1)
    return os.waitpid(child, 0)[1] == 0


def milliseconds(header: Any) -> int:
    """Return the time in one of our headers, as it must be written: ISO 8601 in UTC with milliseconds."""
    assert isinstance(header, str), header
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", header), header
    return round(datetime.fromisoformat(header).timestamp() * 1000)


@contextmanager
def raw_channel(url: str) -> Iterator[BlockingChannel]:
    """Open a bare pika channel on a connection of its own."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        yield connection.channel()
    finally:
        with suppress(AMQPError, OSError):  # the broker may have gone meanwhile
            if connection.is_open:
                connection.close()


def raw_publish(
    url: str,
    exchange: str,
    routing_key: str,
    body: bytes | str,
    properties: pika.BasicProperties | None = None,
) -> bool:
    """Publish with confirms, persistent by default, and return whether a queue took the message."""
    content = body.encode() if isinstance(body, str) else body
    with raw_channel(url) as channel:
        channel.confirm_delivery()
        try:
            channel.basic_publish(
                exchange, routing_key, content, properties or pika.BasicProperties(delivery_mode=2), mandatory=True
            )
        except UnroutableError:
            return False
        return True


@dataclass(frozen=True)
class RawMessage:
    """A message as pika's `basic_get` hands it over."""

    body: bytes
    properties: pika.BasicProperties
    exchange: str
    routing_key: str
    redelivered: bool

    @property
    def headers(self) -> dict[str, Any]:
        return self.properties.headers or {}


def raw_get(url: str, queue: str, *, ack: bool = True) -> RawMessage | None:
    """Take the first message of a queue, or put it back with `ack=False`; `None` when the queue is empty."""
    with raw_channel(url) as channel:
        method, properties, body = channel.basic_get(queue)
        if method is None:
            return None
        if ack:
            channel.basic_ack(method.delivery_tag)
        else:
            channel.basic_nack(method.delivery_tag, requeue=True)
        return RawMessage(body, properties, method.exchange, method.routing_key, method.redelivered)


@dataclass(frozen=True)
class Broker:
    """A virtual host of its own for one test, and what a test wants to do to it from outside."""

    node: Node
    vhost: str

    @property
    def url(self) -> str:
        return self.node.url(self.vhost)

    @property
    def management(self) -> NodeApi:
        return self.node.management

    def queues(self) -> list[str]:
        """Return the names of all queues."""
        return sorted(queue["name"] for queue in self.management.queues(self.vhost))

    def count(self, queue: str) -> int:
        """Count the messages that are ready in a queue, exactly; -1 when there is no such queue."""
        with raw_channel(self.url) as channel:
            try:
                return int(channel.queue_declare(queue, passive=True).method.message_count)
            except ChannelClosedByBroker as error:
                if error.reply_code == 404:
                    return -1
                raise

    def consumers(self, queue: str) -> int:
        """Count the consumers of a queue, exactly."""
        with raw_channel(self.url) as channel:
            return int(channel.queue_declare(queue, passive=True).method.consumer_count)

    def wait_for_count(self, queue: str, count: int, timeout: float = 10.0) -> None:
        """Wait until `count` messages are ready in a queue."""
        wait_until(lambda: self.count(queue) == count, timeout, f"{count} ready messages in {queue!r}")

    def declare_queue(self, name: str, **arguments: Any) -> None:
        """Declare a durable quorum queue; `_` in an argument's name means `-`."""
        named = {key.replace("_", "-"): value for key, value in arguments.items()}
        self.management.declare_queue(self.vhost, name, {"x-queue-type": "quorum", **named})

    def bind_queue(self, name: str, **arguments: Any) -> None:
        """Declare a queue, and bind it as those of an app are."""
        self.declare_queue(name, **arguments)
        with raw_channel(self.url) as channel:
            channel.queue_bind(name, "amqpworker.tasks", name)

    def ids(self, queue: str) -> list[str]:
        """Return the ids of all messages that are ready in a queue, and leave them there."""
        with raw_channel(self.url) as channel:
            found = []
            while (got := channel.basic_get(queue))[0] is not None:
                found.append(got[1].message_id)
            channel.basic_nack(0, multiple=True)
        return found

    def drain(self, queue: str) -> list[str]:
        """Take all messages that are ready in a queue, and return their ids."""
        count, ids = self.count(queue), []
        with raw_channel(self.url) as channel:
            for _, properties, _ in channel.consume(queue, auto_ack=True) if count > 0 else ():
                ids.append(properties.message_id)
                if len(ids) == count:
                    break
        return ids

    def delete_queue(self, name: str) -> None:
        """Delete a queue under its users."""
        self.management.delete_queue(self.vhost, name)

    def publish(
        self, exchange: str, routing_key: str, body: bytes | str, properties: pika.BasicProperties | None = None
    ) -> bool:
        """Publish with bare pika, confirmed; false when no queue took the message."""
        return raw_publish(self.url, exchange, routing_key, body, properties)

    def get(self, queue: str) -> RawMessage | None:
        """Take the first message of a queue."""
        return raw_get(self.url, queue)

    def wait_for_message(self, queue: str, timeout: float = 10.0) -> RawMessage:
        """Take the first message of a queue as soon as there is one."""
        wait_until(lambda: self.count(queue) > 0, timeout, f"a message in {queue!r}")
        message = self.get(queue)
        assert message is not None, f"the message in {queue!r} went elsewhere"
        return message

    def close_connections(self, reason: str = "closed by the test") -> None:
        """Close all connections of the virtual host as an administrator does."""
        self.node.rabbitmqctl("close_all_connections", "--vhost", self.vhost, reason)
