"""A scheduler that leads is killed, frozen or cut off: how soon another one leads, and sends ticks."""

from __future__ import annotations

import os
import random
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from tests.proxy import Proxy

from bench import declare
from bench.arrivals import Arrivals
from bench.context import Bench, Slot
from bench.row import Figures, Limit, Measure, Row
from bench.rows import SCHEDULES
from bench.schedulers import HEARTBEAT, Scheduler, often, scheduler

TIMES = 5
LEAST = 1
UNNOTICED = ("frozen", "cut off", "to the broker", "to the scheduler")
"""What is noticed only when heartbeats or confirms are overdue."""


class Candidate(NamedTuple):
    """A scheduler, and the proxy between it and the broker."""

    scheduler: Scheduler
    proxy: Proxy


def _kill(leader: Candidate) -> None:
    os.kill(leader.scheduler.pid, signal.SIGKILL)


def _freeze(leader: Candidate) -> None:
    os.kill(leader.scheduler.pid, signal.SIGSTOP)


def _cut_to_broker(leader: Candidate) -> None:
    leader.proxy.swallow("to_broker")


def _cut_to_scheduler(leader: Candidate) -> None:
    leader.proxy.swallow("to_client")


def _cut(leader: Candidate) -> None:
    _cut_to_broker(leader)
    _cut_to_scheduler(leader)


@contextmanager
def _candidate(place: Slot, number: int) -> Iterator[Candidate]:
    with Proxy(place.url) as proxy, scheduler(proxy.url, place.folder / f"log-{number}", often()) as process:
        try:
            yield Candidate(process, proxy)
        finally:
            _kill(Candidate(process, proxy))  # it may be frozen


def measure(fail: Callable[[Candidate], None]) -> Callable[[Bench], Figures]:
    """Return what measures how soon a leader is replaced that fails in this way; its successor fails next."""

    def run(bench: Bench) -> Figures:
        leads, ticks = [], []
        with bench.place() as place, ExitStack() as stack:
            declare.declare(place.url, declare.ours())
            arrivals = stack.enter_context(Arrivals(place.url))
            leader = stack.enter_context(_candidate(place, 0))
            leader.scheduler.until(leader.scheduler.led_since, "a leader")
            for number in range(1, bench.count(TIMES, LEAST) + 1):
                standby = stack.enter_context(_candidate(place, number))
                standby.scheduler.wait_for("scheduler_standby")
                time.sleep(random.uniform(0, HEARTBEAT))  # at any moment between two heartbeats
                began = time.time()
                fail(leader)
                led = standby.scheduler.until(standby.scheduler.led_since, "another leader")
                leads.append(led - began)
                first = standby.scheduler.until(lambda: arrivals.first_after(led), "a tick")  # noqa: B023 - called at once
                ticks.append(first - began)
                _kill(leader)
                leader = standby
        return {
            "s until another leads": statistics.median(leads),
            "s until its first tick": statistics.median(ticks),
            "s until its first tick, max": max(ticks),
        }

    return run


ROW = Row(
    "takeover",
    "The scheduler that leads dies, is frozen or cut off, and another one leads",
    (
        Measure("killed", f"kill -9; {TIMES} in each run", measure(_kill)),
        Measure("frozen", f"SIGSTOP; {TIMES} in each run, heartbeat of {HEARTBEAT} s", measure(_freeze)),
        Measure("cut off", "neither direction of its connection delivers anything", measure(_cut)),
        Measure("to the broker", "this direction delivers nothing", measure(_cut_to_broker)),
        Measure("to the scheduler", "this direction delivers nothing", measure(_cut_to_scheduler)),
    ),
    (
        Limit("s until its first tick, max", at_most=1, of="killed", worst=True),
        *(Limit("s until its first tick", at_most=3 * HEARTBEAT, of=side) for side in UNNOTICED),
    ),
    "200 schedules, of which one is due every 10 ms. Two schedulers run, each as a process without a supervisor and behind a "
    "proxy of its own; the successor fails next. Until `scheduler_leading` in the log of the other one; then until the "
    "first tick after that has arrived at a raw consumer. RabbitMQ notices a silent client after two to three heartbeats: the "
    "longest time is three heartbeats and the takeover itself.",
    section=SCHEDULES,
)
