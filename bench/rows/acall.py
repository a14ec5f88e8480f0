"""`acall` from 100 coroutines, against FastStream's `request` and bare aio-pika."""

from __future__ import annotations

from bench.coroutines import AIO_PIKA, BY_THREAD, ENTERED, FASTSTREAM, aio_pika, by_thread, entered, faststream
from bench.row import Ratio, Row
from bench.rows import COROUTINES

COUNT = 12_000
COUNT_AIO_PIKA = 5_000
COUNT_FASTSTREAM = 1_000
RATE = "calls/s"

ROW = Row(
    "acall",
    "acall() from 100 coroutines",
    (
        entered("calls", COUNT),
        by_thread("calls", COUNT),
        aio_pika("calls", COUNT_AIO_PIKA, "bare, direct reply-to, requests unconfirmed"),
        faststream("calls", COUNT_FASTSTREAM, "request(), which makes one call at a time"),
    ),
    (
        Ratio(FASTSTREAM, RATE, at_least=10, of=ENTERED),
        Ratio(FASTSTREAM, RATE, at_least=10, of=BY_THREAD),
        Ratio(AIO_PIKA, RATE, at_least=1.5, of=ENTERED),
    ),
    "One worker of amqpworker, 1 process × 8 threads, replies to all sides, over its quorum queue.",
    section=COROUTINES,
)
