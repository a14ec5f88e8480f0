"""taskiq's tasks on aio-pika: a quorum queue, confirmed, coroutines, as it comes (its threads are slower)."""

from __future__ import annotations

import asyncio
import os

from taskiq_aio_pika import AioPikaBroker

from bench.load import arguments
from bench.tally import marks

prefetch = os.environ.get("BENCH_PREFETCH")
broker = AioPikaBroker(os.environ["BENCH_URL"], **({"qos": int(prefetch)} if prefetch else {}))
if "BENCH_TALLY" in os.environ:
    mark = marks()


@broker.task(task_name="empty")
async def empty(index: int, recipient: str, subject: str, text: str) -> None:
    mark.end(index)


TASKS = {"empty": empty}


def fill(name: str, count: int) -> None:
    """Send this many messages, 256 at a time, all confirmed."""
    asyncio.run(_fill(name, count))


async def _fill(name: str, count: int) -> None:
    task = TASKS[name]
    await broker.startup()
    for start in range(0, count, 256):
        await asyncio.gather(*(task.kiq(**arguments(index)) for index in range(start, min(start + 256, count))))
    await broker.shutdown()
