"""`send_many`, all confirmed, against Dramatiq's publishes, which are not confirmed."""

from __future__ import annotations

from bench.row import Ratio, Row
from bench.sending import dramatiq, ours

COUNT = 40_000

ROW = Row(
    "send-many",
    "send_many, all confirmed, against Dramatiq's unconfirmed publishes",
    (ours("many", COUNT), dramatiq(COUNT)),
    (Ratio("Dramatiq", "messages/s", at_least=2),),
)
