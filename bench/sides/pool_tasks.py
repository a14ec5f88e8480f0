"""The tasks of the pools that are watched: short waits, tasks that run over their limits, and one in a process of its own."""

from __future__ import annotations

import os
import time
from pathlib import Path

from amqpworker import App, Settings, TimeLimitExceeded, current

from bench.ledger import VARIABLE, Ledger
from bench.load import QUEUE

STEP = 0.02
SOFT_LIMIT = 0.3
HARD_LIMIT = 1.0
FOR_EVER = 600.0
# No heartbeat is to notice what the worker has to notice by itself.
HEARTBEAT = 300

app = App(os.environ["BENCH_URL"], settings=Settings(heartbeat=HEARTBEAT))
ledger = Ledger(Path(os.environ[VARIABLE]))


def deadline() -> float:
    """Return when this run's limit is reached, by the monotonic clock."""
    left = current().time_left
    assert left is not None
    return time.monotonic() + left


@app.task(queue=QUEUE, retry=None)
def step(index: int) -> None:
    time.sleep(STEP)
    ledger.note(index, time.monotonic())


@app.task(queue=QUEUE, retry=None, time_limit=SOFT_LIMIT)
def spin(index: int) -> None:
    limit = deadline()
    turns = 0
    try:
        while True:
            turns += 1
    except TimeLimitExceeded:
        ledger.note(index, time.monotonic() - limit)


@app.task(queue=QUEUE, retry=None, hard_limit=HARD_LIMIT)
def stuck(index: int) -> None:
    ledger.note(index, deadline())
    time.sleep(FOR_EVER)


@app.task(queue=QUEUE, retry=None, hard_limit=HARD_LIMIT, isolated=True)
def alone(index: int) -> None:
    ledger.note(os.getpid(), deadline())
    time.sleep(FOR_EVER)
