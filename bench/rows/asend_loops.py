"""`asend` in an event loop that lives for this one call, as under `asyncio.run` or `async_to_sync`."""

from __future__ import annotations

from bench.coroutines import BY_THREAD, aio_pika, by_thread
from bench.row import Limit, Row
from bench.rows import COROUTINES

COUNT = 1_000
COUNT_AIO_PIKA = 200

ROW = Row(
    "asend-loops",
    "asyncio.run(task.asend()): an event loop for each send",
    (by_thread("loops", COUNT), aio_pika("loops", COUNT_AIO_PIKA, "bare, a connection for each")),
    (Limit("ms p50", at_most=3, of=BY_THREAD),),
    "The time is that of `asyncio.run`, which makes the event loop and closes it.",
    section=COROUTINES,
)
