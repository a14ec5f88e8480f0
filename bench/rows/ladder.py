"""20,000 messages due at once after three hops: amqpworker's ladder against one whose bits are words of a topic key."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from amqpworker.routing.delay import route
from amqpworker.routing.topology import Names

from bench import declare, messages
from bench.context import Bench
from bench.load import QUEUE
from bench.places import SideFailed
from bench.row import Figures, Measure, Ratio, Row
from bench.wire import Wire

COUNT = 20_000
STEPS = (4, 2, 1)
"""Three levels in both ladders, in seconds."""


def _measure(bench: Bench, url: str, exchange: str, key: str, headers: dict[str, object]) -> Figures:
    count = bench.count(COUNT)
    frames = list(messages.frames("bench.sides.ours.empty", count, exchange, key, headers=headers))
    try:
        with closing(Wire(url)) as publisher, closing(Wire(url)) as consumer, ThreadPoolExecutor(1) as beside:
            bench.broker.wait_until_idle()
            consuming = beside.submit(consumer.consume, QUEUE, 1000, idle=30, count=count)
            start = time.time()
            publisher.publish(frames)
            published = time.time() - start
            taken, first, last = consuming.result()
    except (OSError, RuntimeError) as error:
        raise SideFailed(f"the raw client failed: {error}") from error
    if taken != count:
        raise SideFailed(f"{taken} of {count} messages came")
    due = start + sum(STEPS)
    return {
        "messages/s": count / (last / 1e9 - due),
        "s late, first": first / 1e9 - due,
        "s to publish": published,
    }


def ours(bench: Bench) -> Figures:
    """Measure amqpworker's ladder."""
    with bench.place() as place:
        declare.declare(place.url, declare.ours(delays=True))
        way = route(Names(declare.NAMESPACE), sum(STEPS))
        return _measure(bench, place.url, way.exchange, QUEUE, dict(way.headers))


def celery(bench: Bench) -> Figures:
    """Measure the ladder of topic keys, entered at its top as Celery does."""
    return _topic(bench, declare.TOPIC_LEVELS - 1)


def nservicebus(bench: Bench) -> Figures:
    """Measure the ladder of topic keys, entered at the highest level that the delay needs as NServiceBus does."""
    return _topic(bench, sum(STEPS).bit_length() - 1)


def _topic(bench: Bench, entry: int) -> Figures:
    with bench.place() as place:
        declare.declare_topic_ladder(place.url, QUEUE)
        return _measure(bench, place.url, declare.topic_level(entry), declare.topic_key(sum(STEPS), QUEUE), {})


def unrouted(bench: Bench) -> Figures:
    """Measure three delay queues that lead straight into each other: what dead-lettering itself allows."""
    with bench.place() as place:
        return _measure(bench, place.url, "", declare.declare_fixed_steps(place.url, QUEUE, STEPS), {})


SIDES: tuple[tuple[str, str, Callable[[Bench], Figures]], ...] = (
    ("amqpworker", "headers exchanges with alternate exchanges, quorum queues", ours),
    ("topic keys, Celery", "topic exchanges, entered at the top as Celery does, quorum queues", celery),
    ("topic keys, NServiceBus", "the same, entered at the highest level that is needed", nservicebus),
    (
        "no routing",
        "three quorum queues straight into each other: just this one delay, what the broker allows",
        unrouted,
    ),
)

ROW = Row(
    "ladder",
    "20,000 messages due at once, three hops",
    tuple(Measure(*side) for side in SIDES),
    (
        Ratio("topic keys, Celery", "messages/s", at_least=3.5),
        Ratio("topic keys, NServiceBus", "messages/s", at_least=3.5),
    ),
    "Published and consumed by the raw socket client; from when the first is due until the last has come.",
)
