"""
The first message of a fresh process: `python -m bench.sides.first_send ours|pika`; prints seconds.

Both connect, publish one message that is confirmed, and find the topology in place. What each imports beforehand does
not count; what it imports late does.
"""

from __future__ import annotations

import os
import sys
import time

from bench.load import QUEUE, arguments


def ours() -> float:
    """Send with amqpworker."""
    from bench.sides.ours import empty

    start = time.perf_counter()
    empty.send(**arguments(0))
    return time.perf_counter() - start


def bare() -> float:
    """Connect and publish with pika."""
    import pika

    from bench.messages import TASKS_EXCHANGE, body_of, properties

    start = time.perf_counter()
    channel = pika.BlockingConnection(pika.URLParameters(os.environ["BENCH_URL"])).channel()
    channel.confirm_delivery()
    message = properties("bench.sides.ours.empty")
    channel.basic_publish(TASKS_EXCHANGE, QUEUE, body_of(0), message, mandatory=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    print(ours() if sys.argv[1] == "ours" else bare())
