"""The app under test: tasks that write down when they start and when they have ended, as the last thing they do."""

from __future__ import annotations

import os
import sys
import time

import killpoints
from ledger import Ledger

import amqpworker
from amqpworker import App, current

QUEUE = "work"
FIRST_WAITS = [0.25, 0.25]
MOST_ATTEMPTS = 1 + len(FIRST_WAITS)

# An isolated process runs tasks for the worker process that has started it: theirs are the runs, and it is who is killed.
spec = sys.modules["__main__"].__spec__
isolated = spec is not None and spec.name == "amqpworker.worker.isolation.program"
ledger = Ledger(os.environ["LEDGER"], os.getppid() if isolated else os.getpid())

app = App(results=os.environ.get("RESULTS"), default_queue=QUEUE)
if not isolated:
    ledger.write("process", package=amqpworker.__file__)
    killpoints.arm(ledger)


def started() -> int:
    """Write the start of this run down and return its attempt."""
    run = current()
    ledger.write("start", id=run.id, attempt=run.attempt, task=run.task)
    killpoints.reached("in the run")
    return run.attempt


def ended() -> None:
    """Write down that this run is over, and well."""
    run = current()
    ledger.write("end", id=run.id, attempt=run.attempt, task=run.task)


@app.task(name="plain", retry=None)
def plain(n: int, seconds: float = 0.0) -> int:
    """Succeed after some seconds."""
    started()
    time.sleep(seconds)
    ended()
    return n


@app.task(name="waits", retry=None)
async def waits(n: int, seconds: float = 0.0) -> int:
    """Succeed after some seconds of a coroutine."""
    import asyncio

    started()
    await asyncio.sleep(seconds)
    ended()
    return n


@app.task(name="flaky", retry=FIRST_WAITS)
def flaky(n: int, seconds: float = 0.0) -> int:
    """Fail at first, after some seconds, and succeed after a wait in the ladder."""
    if started() == 1:
        time.sleep(seconds)
        raise OSError("the other side is away")
    ended()
    return n


@app.task(name="slow at first", retry=None)
def slow_at_first(n: int, seconds: float) -> int:
    """Take some seconds when it is run for the first time, and none when it is run again."""
    started()
    try:
        (ledger.path.parent / current().id).touch(exist_ok=False)
    except FileExistsError:
        seconds = 0.0
    time.sleep(seconds)
    ended()
    return n


@app.task(name="doomed", retry=FIRST_WAITS)
def doomed(n: int) -> int:
    """Fail until no attempt is left."""
    started()
    raise ValueError(f"{n} is not to be had")


@app.task(name="answer", retry=None, result=False)
def answer(n: int) -> int:
    """Answer a call."""
    started()
    ended()
    return n + 1
