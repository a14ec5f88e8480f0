"""A queue that is deleted and made again under its consumer, which RabbitMQ may forget: how soon tasks run again."""

from __future__ import annotations

import statistics
import time

from amqpworker.routing.topology import Binding, Exchange, Queue

from bench import declare
from bench.context import Bench
from bench.pool import Pool, QueueView, pool, send
from bench.row import Figures, Limit, Measure, Row
from bench.rows import POOLS

ONE = "one message"
MANY = 100
PREFETCH = 32
TIMES = 3
LEAST = 1
PATIENCE = 90.0
"""Longer than it takes until a worker subscribes anew to a queue that brings nothing, so that this is measured as well."""
APART = 3.7
"""Longer than the worker takes between two checks of a queue, and no multiple of it."""


def make_again(queue: QueueView) -> None:
    """Delete the queue and make it again, as fast as one can: then RabbitMQ 3.10 does not notify its consumers."""
    for item in declare.ours():
        match item:
            case Queue(name, arguments) if name == declare.QUEUE:
                queue.channel.queue_delete(name)
                queue.channel.queue_declare(name, durable=True, arguments=dict(arguments))
            case Binding(source, name, key, arguments) if name == declare.QUEUE:
                queue.channel.queue_bind(name, source, key, dict(arguments))
            case Exchange() | Queue() | Binding():
                pass


def _again(workers: Pool, queue: QueueView, messages: int) -> float:
    """Return the seconds from the deletion until the first of the tasks that were sent afterwards has run."""
    before = workers.ledger.count()
    start = time.monotonic()
    make_again(queue)
    send(workers.url, "step", range(messages))
    lines = workers.wait_for_lines(before + messages, PATIENCE)
    return lines[before][1] - start


def _of(side: str, note: str, messages: int) -> Measure:
    """Return the measure with N messages in the queue that was made again."""

    def measure(bench: Bench) -> Figures:
        seconds = []
        with bench.place() as place, pool(place, "-p", "1", "--prefetch", str(PREFETCH)) as workers:
            workers.wait_for("process_started")
            with QueueView(place.url) as queue:
                for _ in range(bench.count(TIMES, LEAST)):
                    time.sleep(APART)
                    seconds.append(_again(workers, queue, messages))
            asked = len(workers.events("consumer_lost"))
        return {
            "s until a task ran": statistics.median(seconds),
            "s until a task ran, max": max(seconds),
            "found by asking": asked,
        }

    return Measure(side, note, measure)


ROW = Row(
    "forgotten",
    "A consumer that the broker forgot: its queue deleted and made again",
    (
        _of("amqpworker", f"{MANY} messages, more than the prefetch of {PREFETCH}; {TIMES} in each run", MANY),
        _of(ONE, f"fewer than the prefetch of {PREFETCH}; {TIMES} in each run", 1),
    ),
    (
        Limit("s until a task ran, max", at_most=10, worst=True),
        Limit("s until a task ran, max", at_most=10, of=ONE, worst=True),
    ),
    "From the deletion until a task has run that was sent after it. Where the broker cancels the consumer, nothing has to "
    "be found out; “found by asking” counts when the worker found out by asking the broker (`consumer_lost`).",
    section=POOLS,
)
