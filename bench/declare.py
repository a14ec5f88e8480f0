"""
Declares topologies with pika: amqpworker's own for the bare clients, the ladder of topic keys, and steps without routing.

The ladder of topic keys is the layout of NServiceBus, which Celery uses for its quorum queues: level k is a topic exchange
and a queue that holds a message for 2^k seconds; the bits of the delay precede the routing key, one word each.
"""

from __future__ import annotations

from collections.abc import Sequence

import pika
from amqpworker.routing.topology import Binding, Exchange, Queue, Topology, base, ladder, work_queue

from bench.load import QUEUE

NAMESPACE = "amqpworker"
TOPIC_LEVELS = 28


def ours(*, delays: bool = False) -> Topology:
    """Return what amqpworker declares for the bench's queue."""
    return base(NAMESPACE) + work_queue(NAMESPACE, QUEUE) + (ladder(NAMESPACE) if delays else Topology())


def declare(url: str, topology: Topology) -> None:
    """Declare it all."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    for item in topology:
        match item:
            case Exchange(name, kind, arguments):
                channel.exchange_declare(name, kind, durable=True, arguments=dict(arguments))
            case Queue(name, arguments):
                channel.queue_declare(name, durable=True, arguments=dict(arguments))
            case Binding(source, queue, key, arguments):
                channel.queue_bind(queue, source, key, dict(arguments))
    connection.close()


def declare_topic_ladder(url: str, queue: str) -> None:
    """Declare the ladder of topic keys, and a quorum queue where it ends."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.exchange_declare("topic.due", "topic", durable=True)
    channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
    channel.queue_bind(queue, "topic.due", f"#.{queue}")
    below = "topic.due"
    for level in range(TOPIC_LEVELS):
        name = topic_level(level)
        channel.exchange_declare(name, "topic", durable=True)
        channel.queue_declare(name, durable=True, arguments=_delay_queue(below, 2**level))
        words_before = "*." * (TOPIC_LEVELS - 1 - level)
        channel.queue_bind(name, name, f"{words_before}1.#")
        channel.exchange_bind(below, name, f"{words_before}0.#")
        below = name
    connection.close()


def topic_level(level: int) -> str:
    """Return the name of a level's exchange and queue."""
    return f"topic.delay.{level:02d}"


def topic_key(seconds: int, queue: str) -> str:
    """Return the routing key for a delay: its bits, one word each, and the queue."""
    return ".".join(f"{seconds:0{TOPIC_LEVELS}b}") + f".{queue}"


def declare_fixed_steps(url: str, queue: str, steps: Sequence[int]) -> str:
    """Declare delay queues that lead straight into each other and then into the queue; return the first one's name."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
    following = queue
    for seconds in reversed(steps):
        channel.queue_declare(f"fixed.{seconds}", durable=True, arguments=_delay_queue("", seconds) | _to(following))
        following = f"fixed.{seconds}"
    connection.close()
    return following


def _delay_queue(dead_letter_exchange: str, seconds: int) -> dict[str, object]:
    return {
        "x-queue-type": "quorum",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
        "x-dead-letter-exchange": dead_letter_exchange,
        "x-message-ttl": 1000 * seconds,
    }


def _to(routing_key: str) -> dict[str, object]:
    return {"x-dead-letter-routing-key": routing_key}
