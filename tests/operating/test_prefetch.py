"""Another prefetch while a queue is consumed: nothing is lost, nothing runs twice, and no message becomes a suspect."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from amqpworker import App
from tests.support import Broker, wait_until
from tests.workers import LocalWorker, running

QUEUE = "work"
MANY = 20_000


class Changes(threading.Thread):
    """Sets another prefetch again and again, as soon as the one before is there."""

    def __init__(self, worker: LocalWorker, suspended: bool) -> None:
        super().__init__()
        self._consumer = worker.process.consumer
        self._suspended = suspended
        self._over = threading.Event()
        self.made = 0

    def run(self) -> None:
        for prefetch in itertools.cycle((5, 300, 40)):
            self._consumer.set_prefetch({QUEUE: prefetch})
            self._consumer.leave_to_others(frozenset({QUEUE} if self._suspended and prefetch == 300 else ()))
            if self._over.wait(0.02):
                break
        self._consumer.leave_to_others(frozenset())

    def stop(self) -> None:
        self._over.set()
        self.join()


@contextmanager
def changing(worker: LocalWorker, suspended: bool = False) -> Iterator[None]:
    changes = Changes(worker, suspended)
    changes.start()
    try:
        yield
    finally:
        changes.stop()


def consumers(vhost: Broker) -> list[int]:
    """Return the prefetch of each consumer of the queue."""
    listed: Any = vhost.management.request("GET", "consumers", vhost.vhost)
    return [one["prefetch_count"] for one in listed if one["queue"]["name"] == QUEUE]


@pytest.mark.parametrize("suspended", [False, True], ids=["consumed", "suspended and resumed"])
def test_each_message_runs_once_while_the_prefetch_changes(vhost: Broker, app: App, suspended: bool) -> None:
    """There is no supervisor here, so that a count of the broker would decide what is a suspect."""
    ran: list[int] = []

    @app.task(name="note", queue=QUEUE)
    def note(n: int) -> None:
        ran.append(n)

    with running(app, threads=4, prefetch=100) as worker:
        with changing(worker, suspended):
            app.send_many(note.message(n) for n in range(MANY))
            wait_until(lambda: len(ran) >= MANY, 60, "all run")
        wait_until(lambda: len(consumers(vhost)) == 1, 15, "one consumer is left")
        assert worker.process.receiver._replacements[QUEUE] > 5
    assert sorted(ran) == list(range(MANY))
    assert vhost.count(QUEUE) == 0
    assert vhost.count(f"{QUEUE}.dead") == 0, "none was isolated, where this app cannot be imported"


def test_a_worker_that_drains_while_the_prefetch_changes_leaves_what_it_did_not_run(vhost: Broker, app: App) -> None:
    ran: list[int] = []

    @app.task(name="note", queue=QUEUE)
    def note(n: int) -> None:
        ran.append(n)

    with running(app, threads=4, prefetch=100) as worker, changing(worker):
        sender = threading.Thread(target=lambda: app.send_many(note.message(n) for n in range(MANY)))
        sender.start()
        wait_until(lambda: len(ran) > 500, what="it is at work")
        worker.process.stop_requested.set()
        wait_until(lambda: worker.code is not None, 20, "it has ended")
        sender.join()
    assert len(ran) == len(set(ran)) < MANY
    vhost.wait_for_count(QUEUE, MANY - len(ran))


def test_quick_tasks_have_more_held_and_the_broker_knows(vhost: Broker, app: App) -> None:
    ran: list[int] = []

    @app.task(name="note", queue=QUEUE)
    def note(n: int) -> None:
        ran.append(n)

    with running(app, threads=4) as worker:
        assert worker.process.consumer._channels[QUEUE].prefetch == 4
        app.send_many(note.message(n) for n in range(200))
        wait_until(lambda: worker.process.consumer._channels[QUEUE].prefetch > 50, what="it has grown")
        app.send_many(note.message(n) for n in range(200, 400))
        wait_until(lambda: len(ran) == 400, what="all run")
        held = worker.process.consumer._channels[QUEUE].prefetch
        wait_until(lambda: consumers(vhost) == [held], 15, "the broker has one consumer, with that prefetch")
    assert sorted(ran) == list(range(400))
    assert vhost.count(QUEUE) == 0


def test_an_async_task_that_shares_a_queue_with_long_ones_leaves_these_to_others(vhost: Broker, app: App) -> None:
    go = threading.Event()
    ran: list[str] = []

    @app.task(name="hold", queue=QUEUE)
    def hold() -> None:
        ran.append("hold")
        go.wait(60)

    @app.task(name="coroutine", queue=QUEUE)
    async def coroutine() -> None:
        ran.append("coroutine")
        await asyncio.sleep(0)

    with running(app, threads=2) as worker:
        try:
            coroutine.send()
            wait_until(lambda: ran == ["coroutine"], what="it runs")
            app.send_many(hold.message() for _ in range(50))
            wait_until(lambda: len(ran) == 3, what="both threads have one")
            vhost.wait_for_count(QUEUE, 48)
            worker.process.stop_requested.set()
        finally:
            go.set()


def test_coroutines_run_as_many_at_once_as_they_may(vhost: Broker, app: App) -> None:
    running_now = most = 0
    go = threading.Event()

    @app.task(name="wait", queue=QUEUE)
    async def wait() -> None:
        nonlocal running_now, most
        running_now += 1
        most = max(most, running_now)
        while not go.is_set():
            await asyncio.sleep(0.02)
        running_now -= 1

    with running(app, threads=8, async_tasks=50):
        try:
            app.send_many(wait.message() for _ in range(120))
            wait_until(lambda: most == 50, what="fifty run, though at first only one per thread was held")
        finally:
            go.set()
        wait_until(lambda: vhost.count(QUEUE) == 0 and running_now == 0, 20, "all run")
