"""Dramatiq's actors: classic queues, acknowledged late, no confirms, as it comes."""

from __future__ import annotations

import logging
import os
import time

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from bench.load import QUEUE, arguments
from bench.tally import marks

# Its command line cannot turn logging down, and a traceback for each failure would be measured too.
logging.disable(logging.CRITICAL)

broker = RabbitmqBroker(url=os.environ["BENCH_URL"])
dramatiq.set_broker(broker)
if "BENCH_TALLY" in os.environ:
    mark = marks()


@dramatiq.actor(queue_name=QUEUE)
def empty(index: int, recipient: str, subject: str, text: str) -> None:
    mark.end(index)


@dramatiq.actor(queue_name=QUEUE)
def sleep(index: int, recipient: str, subject: str, text: str) -> None:
    mark.begin(index)
    time.sleep(0.01)
    mark.end(index)


@dramatiq.actor(queue_name=QUEUE, max_retries=3, min_backoff=1000, max_backoff=1000)
def fail_once(index: int, recipient: str, subject: str, text: str) -> None:
    if mark.begin(index):
        raise OSError("the first run fails")
    mark.end(index)


TASKS = {"empty": empty, "sleep": sleep, "fail_once": fail_once}


def fill(name: str, count: int) -> None:
    """Send this many messages; the last ones may still be on their way when this returns."""
    actor = TASKS[name]
    for index in range(count):
        actor.send(**arguments(index))
    broker.close()


def delay_many(first: int, count: int, seconds: float) -> None:
    """Send messages that are due in `seconds`."""
    for index in range(first, first + count):
        empty.send_with_options(kwargs=arguments(index), delay=int(seconds * 1000))
