"""
How fast a bare pika `BlockingConnection` sends: `python -m bench.sides.send_pika COUNT`; prints messages per second.

One at a time, confirmed and mandatory, into amqpworker's queue, with amqpworker's properties.
"""

from __future__ import annotations

import os
import sys
import time

import pika

from bench import declare
from bench.load import QUEUE
from bench.messages import TASKS_EXCHANGE, body_of, properties


def send(channel: pika.adapters.blocking_connection.BlockingChannel, count: int) -> None:
    """Send this many."""
    for index in range(count):
        channel.basic_publish(
            TASKS_EXCHANGE, QUEUE, body_of(index), properties("bench.sides.ours.empty"), mandatory=True
        )


def main() -> None:
    url, count = os.environ["BENCH_URL"], int(sys.argv[1])
    declare.declare(url, declare.ours())
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.confirm_delivery()
    send(channel, 100)
    start = time.perf_counter()
    send(channel, count)
    print(count / (time.perf_counter() - start))
    connection.close()


if __name__ == "__main__":
    main()
