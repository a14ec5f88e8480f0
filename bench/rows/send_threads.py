"""`send()` from 32 threads, against pika's blocking connection, which one thread can use."""

from __future__ import annotations

from bench.row import Ratio, Row
from bench.sending import ours, pika

COUNT = 32_000
COUNT_PIKA = 4_000

ROW = Row(
    "send-threads",
    "send() from 32 threads",
    (ours("threads", COUNT), pika(COUNT_PIKA)),
    (Ratio("pika", "messages/s", at_least=6.5),),
    f"pika sends {COUNT_PIKA:,} of them: its rate does not depend on the number.",
)
