"""
Bare aio-pika: `python -m bench.sides.async_aio_pika sends|calls|one|loops COUNT`; prints figures, as JSON.

What one writes by hand: one connection, one channel with confirms as it comes, mandatory and persistent messages with
amqpworker's properties, into amqpworker's queue. Calls: replies by direct reply-to, requests unconfirmed, which is faster.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aio_pika

from bench import declare
from bench.load import QUEUE
from bench.messages import TASKS_EXCHANGE, attributes, body_of
from bench.stopwatch import Act, Figures, a_loop_each, in_flight, one_by_one

URL = os.environ["BENCH_URL"]
REPLY_TO = "amq.rabbitmq.reply-to"


@asynccontextmanager
async def sender() -> AsyncIterator[Act]:
    """Connect, and give what sends a message."""
    async with await aio_pika.connect(URL) as connection:
        channel = await connection.channel(on_return_raises=True)
        exchange = await channel.get_exchange(TASKS_EXCHANGE, ensure=False)

        async def send(index: int) -> None:
            message = aio_pika.Message(body_of(index), **attributes("bench.sides.ours.empty"))
            await exchange.publish(message, QUEUE, mandatory=True)

        yield send


@asynccontextmanager
async def caller() -> AsyncIterator[Act]:
    """Connect, and give what calls and checks the reply."""
    async with await aio_pika.connect(URL) as connection:
        channel = await connection.channel(publisher_confirms=False)
        exchange = await channel.get_exchange(TASKS_EXCHANGE, ensure=False)
        replies = await channel.get_queue(REPLY_TO, ensure=False)
        waiting: dict[str, asyncio.Future[bytes]] = {}

        async def on_reply(reply: aio_pika.abc.AbstractIncomingMessage) -> None:
            waiting.pop(reply.correlation_id).set_result(reply.body)

        async def call(index: int) -> None:
            named = attributes("bench.sides.ours.echo")
            future = waiting[named["message_id"]] = asyncio.get_running_loop().create_future()
            body = json.dumps({"index": index}).encode()
            message = aio_pika.Message(body, reply_to=REPLY_TO, correlation_id=named["message_id"], **named)
            await exchange.publish(message, QUEUE)
            if json.loads(await future)["value"] != index:
                raise SystemExit("a wrong reply")

        await replies.consume(on_reply, no_ack=True)
        yield call


async def connect_and_send(index: int) -> None:
    """Send in an event loop that lives for this one message: it needs a connection of its own."""
    async with sender() as send:
        await send(index)


async def measure_loop(what: str, count: int) -> Figures:
    """Measure coroutines of one event loop."""
    match what:
        case "sends":
            async with sender() as send:
                return await in_flight(send, "message", count)
        case "one":
            async with sender() as send:
                return await one_by_one(send, "message", count)
        case "calls":
            async with caller() as call:
                return await in_flight(call, "call", count)
        case _:
            raise SystemExit(f"unknown: {what}")


def main() -> None:
    what, count = sys.argv[1], int(sys.argv[2])
    declare.declare(URL, declare.ours())
    if what == "loops":
        print(json.dumps(a_loop_each(connect_and_send, "message", count)))
    else:
        print(json.dumps(asyncio.run(measure_loop(what, count))))


if __name__ == "__main__":
    main()
