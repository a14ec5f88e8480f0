"""The queue that bare clients consume from: amqpworker's topology and messages, without amqpworker's publisher."""

from __future__ import annotations

import os

from bench import declare, messages
from bench.wire import Wire


def fill(name: str, count: int) -> None:
    """Publish this many messages with confirms."""
    url = os.environ["BENCH_URL"]
    declare.declare(url, declare.ours())
    wire = Wire(url)
    wire.publish(messages.frames(f"bench.sides.ours.{name}", count))
    wire.close()
