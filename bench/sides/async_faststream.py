"""
FastStream: `python -m bench.sides.async_faststream sends|calls COUNT`; prints figures, as JSON.

Sends are confirmed, mandatory and persistent, with amqpworker's properties, into amqpworker's exchange and queue. Calls
use `request`, which makes one call at a time, however many coroutines there are.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from faststream.rabbit import Channel, RabbitBroker, RabbitExchange

from bench.load import QUEUE, arguments
from bench.messages import TASKS_EXCHANGE, attributes
from bench.stopwatch import Figures, in_flight

broker = RabbitBroker(os.environ["BENCH_URL"], logger=None, default_channel=Channel(on_return_raises=True))
exchange = RabbitExchange(TASKS_EXCHANGE, declare=False)


def options(task: str) -> dict[str, Any]:
    """Return what a message of this task is published with."""
    named = attributes(task)
    kept = {name: named[name] for name in ("headers", "message_id", "timestamp")}
    return {"queue": QUEUE, "exchange": exchange, "persist": True, "mandatory": True, "message_type": task, **kept}


async def send(index: int) -> None:
    """Send a message."""
    await broker.publish(arguments(index), **options("bench.sides.ours.empty"))


async def call(index: int) -> None:
    """Call, and check the reply."""
    reply = await broker.request({"index": index}, timeout=30, **options("bench.sides.ours.echo"))
    if (await reply.decode())["value"] != index:
        raise SystemExit("a wrong reply")


async def measure_loop(what: str, count: int) -> Figures:
    """Measure coroutines of one event loop."""
    async with broker:
        match what:
            case "sends":
                return await in_flight(send, "message", count)
            case "calls":
                return await in_flight(call, "call", count)
            case _:
                raise SystemExit(f"unknown: {what}")


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure_loop(sys.argv[1], int(sys.argv[2])))))
