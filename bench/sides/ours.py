"""amqpworker's tasks, and how they are put into the queue."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from amqpworker import App

from bench.load import QUEUE, arguments
from bench.tally import marks

app = App(os.environ["BENCH_URL"], results=os.environ.get("BENCH_RESULTS"))
if "BENCH_TALLY" in os.environ:
    mark = marks()


@app.task(queue=QUEUE)
def empty(index: int, recipient: str, subject: str, text: str) -> None:
    mark.end(index)


@app.task(queue=QUEUE)
def mixed(index: int, recipient: str, subject: str, text: str) -> None:
    if index % 2000 == 1000:
        time.sleep(0.1)
    mark.end(index)


@app.task(queue=QUEUE)
def sleep(index: int, recipient: str, subject: str, text: str) -> None:
    mark.begin(index)
    time.sleep(0.01)
    mark.end(index)


@app.task(queue=QUEUE, retry=[1])
def fail_once(index: int, recipient: str, subject: str, text: str) -> None:
    if mark.begin(index):
        raise OSError("the first run fails")
    mark.end(index)


@app.task(queue=QUEUE)
def echo(index: int) -> int:
    return index


@app.task(queue=QUEUE)
def stored(index: int, recipient: str, subject: str, text: str) -> str:
    mark.end(index)
    return f"{index}: {text}"


@app.task(queue=QUEUE, result=False)
def unstored(index: int, recipient: str, subject: str, text: str) -> None:
    mark.end(index)


@app.task(queue=QUEUE, track=True)
def tracked(index: int, recipient: str, subject: str, text: str) -> None:
    mark.end(index)


@app.task(queue=QUEUE)
def paced(due: float) -> float:
    """End at a time, or at once if that is over; return when it has ended."""
    time.sleep(max(0.0, due - time.time()))
    return time.time()


FILLING = (empty, mixed, sleep, fail_once, stored, unstored, tracked)
TASKS = {task.name.rpartition(".")[2]: task for task in FILLING}


def fill(name: str, count: int) -> None:
    """Send this many messages, all confirmed."""
    task = TASKS[name]
    chunk = 10_000

    def messages(start: int) -> Iterator[object]:
        return (task.message(**arguments(index)) for index in range(start, min(start + chunk, count)))

    for start in range(0, count, chunk):
        app.send_many(messages(start))
    app.close()


def delay_many(first: int, count: int, seconds: float) -> None:
    """Send tasks that are due in `seconds`, all confirmed."""
    delayed = empty.options(delay=seconds)
    app.send_many(delayed.message(**arguments(index)) for index in range(first, first + count))
