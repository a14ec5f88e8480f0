"""`asend` from 100 coroutines, against FastStream's confirmed publishes and bare aio-pika's."""

from __future__ import annotations

from bench.coroutines import (
    AIO_PIKA,
    BY_THREAD,
    ENTERED,
    FASTSTREAM,
    SEND_MANY,
    aio_pika,
    by_thread,
    entered,
    faststream,
    send_many,
)
from bench.row import Either, Ratio, Row
from bench.rows import COROUTINES
from bench.stopwatch import cpu

COUNT = 30_000
COUNT_PEERS = 10_000
RATE, CPU = "messages/s", cpu("message")


def fast(side: str) -> Either:
    """Require that a side of ours sends fast, or as fast as the broker lets us."""
    return Either((Ratio(FASTSTREAM, RATE, at_least=4, of=side), Ratio(SEND_MANY, RATE, at_least=0.8, of=side)))


ROW = Row(
    "asend",
    "asend() from 100 coroutines",
    (
        entered("sends", COUNT),
        by_thread("sends", COUNT),
        send_many(COUNT),
        aio_pika("sends", COUNT_PEERS),
        faststream("sends", COUNT_PEERS, "publish(persist=True)"),
    ),
    (
        fast(ENTERED),
        fast(BY_THREAD),
        Ratio(AIO_PIKA, CPU, at_most=0.25, of=ENTERED),
        Ratio(AIO_PIKA, CPU, at_most=0.35, of=BY_THREAD),
    ),
    "All confirmed, mandatory and persistent, into amqpworker's quorum queue. The broker is the limit of the faster sides. "
    f"aio-pika and FastStream send {COUNT_PEERS:,}: their rates do not depend on the number.",
    section=COROUTINES,
)
