"""20,000 messages due at once after three hops: amqpworker's ladder against one whose bits are words of a topic key."""

from __future__ import annotations

import time
from collections.abc import Callable

from amqpworker.delay import route
from amqpworker.topology import Names

from bench import declare, messages
from bench.context import Bench
from bench.load import QUEUE
from bench.places import SideFailed
from bench.row import Figures, Measure, Ratio, Row
from bench.wire import Wire

COUNT = 20_000
DELAY = 7
"""4 + 2 + 1 seconds: three levels in both ladders, and long enough that all are published before one is due."""


def _measure(bench: Bench, url: str, exchange: str, key: str, headers: dict[str, object]) -> Figures:
    count = bench.count(COUNT)
    publisher, consumer = Wire(url), Wire(url)
    frames = list(messages.frames("bench.sides.ours.empty", count, exchange, key, headers=headers))
    bench.broker.wait_until_idle()
    start = time.time()
    publisher.publish(frames)
    if time.time() - start > DELAY / 2:
        raise SideFailed("publishing took so long that the first message was on its way before the last was sent")
    taken, first, last = consumer.consume(QUEUE, 1000, idle=30, count=count)
    publisher.close()
    consumer.close()
    if taken != count:
        raise SideFailed(f"{taken} of {count} messages came")
    due = start + DELAY
    return {"messages/s": count / (last / 1e9 - due), "s late, first": first / 1e9 - due}


def ours(bench: Bench) -> Figures:
    """Measure amqpworker's ladder."""
    with bench.place() as place:
        declare.declare(place.url, declare.ours(delays=True))
        way = route(Names(declare.NAMESPACE), QUEUE, DELAY)
        return _measure(bench, place.url, way.exchange, way.routing_key, dict(way.headers))


def topic(bench: Bench) -> Figures:
    """Measure the ladder of topic keys."""
    with bench.place() as place:
        declare.declare_topic_ladder(place.url, QUEUE)
        return _measure(bench, place.url, *declare.topic_route(DELAY, QUEUE), {})


SIDES: tuple[tuple[str, str, Callable[[Bench], Figures]], ...] = (
    ("amqpworker", "headers exchanges with alternate exchanges, quorum queues", ours),
    ("topic keys", "the layout of NServiceBus and Celery, quorum queues", topic),
)

ROW = Row(
    "ladder",
    "20,000 messages due at once, three hops",
    tuple(Measure(*side) for side in SIDES),
    (Ratio("topic keys", "messages/s", at_least=3.5),),
    "Published and consumed by the raw socket client; from when the first is due until the last has come.",
)
