"""The schedules that are measured: each has one tick per period, spread over the period or all at once."""

from __future__ import annotations

import os
from datetime import UTC, datetime

from amqpworker import App

from bench.load import QUEUE

TIMING = os.environ["BENCH_TIMING"]
COUNT = int(os.environ["BENCH_COUNT"])
PERIOD = float(os.environ["BENCH_PERIOD"])

app = App()


@app.task(queue=QUEUE)
def tick(index: int) -> None: ...


for index in range(COUNT):
    match TIMING:
        case "spread":
            start = datetime.fromtimestamp(index * PERIOD / COUNT, UTC)
            tick.schedule(f"schedule-{index:05d}", every=PERIOD, start=start)(index)
        case "at once":
            tick.schedule(f"schedule-{index:05d}", every=PERIOD)(index)
        case "cron":
            tick.schedule(f"schedule-{index:05d}", cron="* * * * *")(index)
