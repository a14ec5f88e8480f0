"""Celery's tasks: a classic queue, acknowledged early, no confirms, as it comes."""

from __future__ import annotations

import os
import time

from celery import Celery

from bench.load import QUEUE, arguments
from bench.tally import marks

app = Celery("bench", broker=os.environ["BENCH_URL"])
app.conf.task_default_queue = QUEUE
app.conf.worker_hijack_root_logger = True
app.conf.broker_connection_retry_on_startup = True
if os.environ.get("BENCH_RPC"):
    app.conf.result_backend = "rpc://"
if "BENCH_RESULTS" in os.environ:
    app.conf.result_backend = os.environ["BENCH_RESULTS"]
if "BENCH_TALLY" in os.environ:
    mark = marks()


@app.task(name="empty")
def empty(index: int, recipient: str, subject: str, text: str) -> None:
    mark.end(index)


@app.task(name="sleep")
def sleep(index: int, recipient: str, subject: str, text: str) -> None:
    mark.begin(index)
    time.sleep(0.01)
    mark.end(index)


@app.task(name="fail_once", autoretry_for=(OSError,), default_retry_delay=1, max_retries=3)
def fail_once(index: int, recipient: str, subject: str, text: str) -> None:
    if mark.begin(index):
        raise OSError("the first run fails")
    mark.end(index)


@app.task(name="echo")
def echo(index: int) -> int:
    return index


@app.task(name="stored")
def stored(index: int, recipient: str, subject: str, text: str) -> str:
    mark.end(index)
    return f"{index}: {text}"


TASKS = {"empty": empty, "sleep": sleep, "fail_once": fail_once, "stored": stored}


def fill(name: str, count: int) -> None:
    """Send this many messages over one connection."""
    task = TASKS[name]
    with app.producer_or_acquire() as producer:
        for index in range(count):
            task.apply_async(kwargs=arguments(index), producer=producer)


def delay_many(first: int, count: int, seconds: float) -> None:
    """Send messages that are due in `seconds`."""
    with app.producer_or_acquire() as producer:
        for index in range(first, first + count):
            empty.apply_async(kwargs=arguments(index), countdown=seconds, producer=producer)
