"""`asend` one by one, against bare aio-pika."""

from __future__ import annotations

from bench.coroutines import AIO_PIKA, BY_THREAD, ENTERED, aio_pika, by_thread, entered
from bench.row import Ratio, Row
from bench.rows import COROUTINES
from bench.stopwatch import cpu

COUNT = 3_000

ROW = Row(
    "asend-one",
    "asend() one by one",
    (entered("one", COUNT), by_thread("one", COUNT), aio_pika("one", COUNT)),
    tuple(
        Ratio(AIO_PIKA, metric, at_most=1, of=side)
        for side in (ENTERED, BY_THREAD)
        for metric in ("ms p50", cpu("message"))
    ),
    "All confirmed, mandatory and persistent, into amqpworker's quorum queue.",
    section=COROUTINES,
    rounds=2,
)
