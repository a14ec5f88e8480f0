"""What a worker does with its deliveries: acknowledges early, holds few, requeues in time, survives what tasks do."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from amqpworker import App, current
from amqpworker.broker import ack_timeout
from amqpworker.errors import NoCurrentTask
from tests.support import Broker, wait_until
from tests.workers import running

QUEUE = "work"


def test_messages_are_run_and_acknowledged(vhost: Broker, app: App) -> None:
    ran: list[int] = []

    @app.task(name="note", queue=QUEUE)
    def note(n: int) -> None:
        ran.append(n)

    with running(app, threads=4):
        app.send_many(note.message(n) for n in range(500))
        wait_until(lambda: len(ran) == 500, what="500 runs")
    assert sorted(ran) == list(range(500))
    assert vhost.count(QUEUE) == 0, "all were acknowledged: none came back when the worker left"


def test_acks_behind_a_long_task_are_not_withheld(vhost: Broker, app: App) -> None:
    go = threading.Event()
    ran: list[int] = []

    @app.task(name="hold", queue=QUEUE)
    def hold() -> None:
        go.wait(60)

    @app.task(name="note", queue=QUEUE)
    def note(n: int) -> None:
        ran.append(n)

    with running(app, threads=2, prefetch=16):
        try:
            hold.send()
            app.send_many(note.message(n) for n in range(300))
            # The broker delivers more than 16 only as they are acknowledged.
            wait_until(lambda: len(ran) == 300, what="those behind the long task run")
        finally:
            go.set()
    assert len(ran) == 300
    assert vhost.count(QUEUE) == 0


@pytest.mark.parametrize(("options", "held"), [({"threads": 2}, 2), ({"threads": 2, "prefetch": 3}, 3)])
def test_no_more_is_held_than_the_prefetch(vhost: Broker, app: App, options: dict[str, Any], held: int) -> None:
    go = threading.Event()

    @app.task(name="hold", queue=QUEUE)
    def hold() -> None:
        go.wait(60)

    with running(app, **options) as worker:
        try:
            app.send_many(hold.message() for _ in range(held + 5))
            channel = worker.process.consumer._channels[QUEUE]
            wait_until(lambda: len(channel.unclaimed) + len(worker.process.runners.running) >= held, what="it is full")
            vhost.wait_for_count(QUEUE, 5)
        finally:
            go.set()
        wait_until(lambda: vhost.count(QUEUE) == 0, what="the rest runs")


def test_unclaimed_deliveries_are_requeued_in_time(vhost: Broker, make_app: Callable[..., App]) -> None:
    """Long before the ack timeout would close the channel, also when nothing else happens in the worker."""
    busy, free = make_app(ack_timeout=2), make_app(ack_timeout=2)
    go = threading.Event()
    ran: list[tuple[str, int]] = []

    @busy.task(name="hold", queue=QUEUE)
    def hold(n: int) -> None:
        ran.append(("busy", n))
        go.wait(60)

    @free.task(name="hold", queue=QUEUE)
    def note(n: int) -> None:
        ran.append(("free", n))

    with running(busy, threads=1, prefetch=4) as holder:
        try:
            hold.send(0)
            wait_until(lambda: ran, what="the task runs that keeps the worker busy")
            wait_until(lambda: not holder.process.receiver.on_tick(), what="nothing waits in the worker")
            for n in (1, 2, 3):
                hold.send(n)
            vhost.wait_for_count(QUEUE, 0)
            with running(free, threads=1, prefetch=4):
                wait_until(lambda: len([one for one in ran if one[1]]) == 3, 15, "the free worker runs them")
        finally:
            go.set()
    # The first may come a second time: from RabbitMQ 4.3 on its ack timeout is as short as it was asked for.
    assert sorted(one for one in ran if one[1]) == [("free", 1), ("free", 2), ("free", 3)]


def test_an_ack_timeout_that_was_given_is_asked_for_where_the_broker_heeds_it(
    vhost: Broker, make_app: Callable[..., App], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker of the tests does not, and takes the argument nevertheless: so it can be seen there."""
    monkeypatch.setattr(ack_timeout, "FIRST", (3, 10))
    app = make_app(ack_timeout=7200)

    @app.task(name="note", queue=QUEUE)
    def note() -> None: ...

    with running(app, threads=1):

        def of_queue() -> list[dict[str, Any]]:
            consumers = vhost.management.request("GET", "consumers", vhost.vhost)
            return [one for one in consumers if one["queue"]["name"] == QUEUE]

        (there,) = wait_until(of_queue, what="the consumer is listed")
        assert there["arguments"] == {"x-consumer-timeout": 7_200_000}


# ---- what tasks do --------------------------------------------------------------------------------------------------


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def deeper(n: int) -> int:
    return deeper(n + 1)


def close_output() -> None:
    descriptor = os.dup(2)
    stream = os.fdopen(descriptor, "w")
    stream.close()
    sys.stdout.close()


def start_thread() -> None:
    inner = threading.Thread(target=current)
    inner.daemon = True
    inner.start()
    inner.join()


DEEDS: dict[str, Callable[[], Any]] = {
    "leaves": lambda: sys.exit(3),
    "interrupts": lambda: (_ for _ in ()).throw(KeyboardInterrupt),
    "raises a bare BaseException": lambda: (_ for _ in ()).throw(BaseException("bare")),
    "stops an iteration": lambda: next(iter(())),
    "is mute": lambda: (_ for _ in ()).throw(Mute()),
    "recurses": lambda: deeper(0),
    "logs a megabyte": lambda: (_ for _ in ()).throw(ValueError("x" * 1_000_000)),
}


def test_the_threads_survive_everything_that_tasks_raise(vhost: Broker, app: App) -> None:
    ran: list[str] = []

    @app.task(name="do", queue=QUEUE, retry=None)
    def do(deed: str) -> None:
        ran.append(deed)
        DEEDS[deed]()

    @app.task(name="fine", queue=QUEUE)
    def fine() -> None:
        ran.append("fine")

    with running(app, threads=1) as worker:
        for deed in DEEDS:
            do.send(deed)
        fine.send()
        wait_until(lambda: "fine" in ran, what="the task after them")
        vhost.wait_for_count(f"{QUEUE}.dead", len(DEEDS))
        assert all(thread.is_alive() for thread in worker.process.runners._threads)
    assert ran == [*DEEDS, "fine"], "each once"
    assert vhost.count(QUEUE) == 0
    kinds = [vhost.wait_for_message(f"{QUEUE}.dead").headers["aw-error-type"] for _ in DEEDS]
    assert kinds[0] == "SystemExit"
    assert "RecursionError" in kinds


def test_a_task_may_close_standard_output_or_start_threads(
    vhost: Broker, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(os.devnull, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        done: list[str] = []
        caught: list[BaseException] = []
        monkeypatch.setattr(threading, "excepthook", lambda told: caught.append(told.exc_value))

        @app.task(name="close", queue=QUEUE)
        def close() -> None:
            close_output()
            done.append("closed")

        @app.task(name="start", queue=QUEUE)
        def start() -> None:
            start_thread()
            done.append("started")

        with running(app, threads=1):
            close.send()
            start.send()
            wait_until(lambda: len(done) == 2, what="both run")
    assert done == ["closed", "started"]
    assert isinstance(caught[0], NoCurrentTask), "current() returns nothing in a thread of the task's own"


def test_a_task_is_known_by_its_aliases(vhost: Broker, app: App) -> None:
    seen: list[str] = []

    @app.task(name="new.name", queue=QUEUE, aliases=["old.name", "older.name"])
    def renamed() -> None:
        seen.append(current().task)

    with running(app, threads=1):
        for name in ("old.name", "older.name", "new.name"):
            assert vhost.management.publish(vhost.vhost, "amqpworker.tasks", QUEUE, "{}", {"type": name})
        wait_until(lambda: len(seen) == 3, what="all three run")
    assert seen == ["new.name"] * 3


def test_a_run_knows_its_message(vhost: Broker, app: App) -> None:
    seen: list[tuple[Any, ...]] = []

    @app.task(name="look", queue=QUEUE)
    def look() -> None:
        run = current()
        seen.append((run.id, run.attempt, run.queue, run.task, run.headers))

    with running(app, threads=1):
        sent = look.options(headers={"tenant": "acme", "n": 1}).send()
        wait_until(lambda: seen, what="it runs")
    assert seen == [(sent.id, 1, QUEUE, "look", {"tenant": "acme", "n": 1})]
