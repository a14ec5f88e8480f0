"""
amqpworker's coroutines: `python -m bench.sides.async_ours WHAT CARRIER COUNT`; prints figures, as JSON.

WHAT: `sends` or `calls` from 100 coroutines, `one` (sends one by one), `loops` (an event loop for each send), `send_many`.
CARRIER: `entered`, inside `async with app:`, or `thread`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import nullcontext

from bench.load import arguments
from bench.sides.ours import app, echo, empty
from bench.stopwatch import WARM_UP, Figures, a_loop_each, in_flight, measured, one_by_one

call_echo = echo.options(timeout=30).acall


async def send(index: int) -> None:
    """Send a message, as `task.asend` does it: confirmed and mandatory."""
    await empty.asend(**arguments(index))


async def call(index: int) -> None:
    """Call, and check the reply."""
    if await call_echo(index) != index:
        raise SystemExit("a wrong reply")


async def measure_loop(what: str, carrier: str, count: int) -> Figures:
    """Measure coroutines of one event loop."""
    async with app if carrier == "entered" else nullcontext():
        match what:
            case "sends":
                return await in_flight(send, "message", count)
            case "calls":
                return await in_flight(call, "call", count)
            case "one":
                return await one_by_one(send, "message", count)
            case _:
                raise SystemExit(f"unknown: {what}")


def send_many(count: int) -> Figures:
    """Measure `send_many`, of a thread."""
    app.send_many(empty.message(**arguments(index)) for index in range(WARM_UP))
    with measured("message", count) as figures:
        app.send_many(empty.message(**arguments(index)) for index in range(count))
    return figures


def main() -> None:
    what, carrier, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    match what:
        case "send_many":
            figures = send_many(count)
        case "loops":
            figures = a_loop_each(send, "message", count)
        case _:
            figures = asyncio.run(measure_loop(what, carrier, count))
    print(json.dumps(figures))
    app.close()


if __name__ == "__main__":
    main()
