"""A queue that is deleted and made again under its consumer, which RabbitMQ may forget: how soon tasks run again."""

from __future__ import annotations

import statistics
import time

from amqpworker.topology import Binding, Exchange, Queue

from bench import declare
from bench.context import Bench
from bench.pool import Pool, QueueView, pool, send
from bench.row import Figures, Limit, Measure, Row
from bench.rows import POOLS

TIMES = 5
LEAST = 2
APART = 3.7
"""Longer than the worker takes between two looks at a queue, and no multiple of it."""


def make_again(queue: QueueView) -> None:
    """Delete the queue and make it again, as fast as one can: then RabbitMQ 3.10 tells its consumers nothing."""
    for item in declare.ours():
        match item:
            case Queue(name, arguments) if name == declare.QUEUE:
                queue.channel.queue_delete(name)
                queue.channel.queue_declare(name, durable=True, arguments=dict(arguments))
            case Binding(source, name, key, arguments) if name == declare.QUEUE:
                queue.channel.queue_bind(name, source, key, dict(arguments))
            case Exchange() | Queue() | Binding():
                pass


def _again(workers: Pool, queue: QueueView, number: int) -> float:
    """Return the seconds from the deletion until a task that was sent afterwards has run."""
    start = time.monotonic()
    make_again(queue)
    send(workers.url, "step", [number])
    (_, ended) = workers.wait_for_lines(number)[-1]
    return ended - start


def ours(bench: Bench) -> Figures:
    """Do it some times, at any time between two looks."""
    seconds = []
    with bench.place() as place, pool(place, "-p", "1") as workers, QueueView(place.url) as queue:
        workers.wait_for("process_started")
        for number in range(1, bench.count(TIMES, LEAST) + 1):
            time.sleep(APART)
            seconds.append(_again(workers, queue, number))
        unseen = len(workers.events("consumer_lost"))
    return {
        "s until a task ran": statistics.median(seconds),
        "s until a task ran, max": max(seconds),
        "not told by the broker": unseen,
    }


ROW = Row(
    "forgotten",
    "A consumer that the broker forgot: its queue deleted and made again",
    (Measure("amqpworker", f"{TIMES} in each run, {APART} s apart", ours),),
    (Limit("s until a task ran, max", at_most=10, worst=True),),
    "From the deletion until a task has run that was sent after it. Where the broker cancels the consumer, nothing has to "
    "be found out; “not told by the broker” counts when the worker found it out by asking.",
    section=POOLS,
)
