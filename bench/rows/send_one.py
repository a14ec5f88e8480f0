"""`send()` one by one, against pika's blocking connection, which has no thread to cross."""

from __future__ import annotations

from bench.row import Ratio, Row
from bench.sending import ours, pika

COUNT = 4_000

ROW = Row(
    "send-one",
    "send() one by one",
    (ours("one", COUNT), pika(COUNT)),
    (Ratio("pika", "messages/s", at_least=0.95),),
)
