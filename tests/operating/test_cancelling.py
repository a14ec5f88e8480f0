"""Cancelling, with a real broker: what is cancelled does not start, what runs sees it or is ended, and nothing is dead-lettered."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from amqpworker import App, TaskCancelled, TaskFailed, Unroutable, current
from amqpworker.client.cancelling import announce
from amqpworker.model.cancel import decode_cancel
from amqpworker.model.message import Message
from tests.support import Broker, raw_channel, wait_until
from tests.workers import running

QUEUE = "work"


@pytest.fixture
def ran() -> list[str]:
    return []


@pytest.fixture
def note(app: App, ran: list[str]) -> Any:
    @app.task(name="note", queue=QUEUE)
    def note() -> None:
        ran.append(current().id)

    return note


def test_a_delayed_message_that_is_cancelled_does_not_run_and_leaves_nothing(
    vhost: Broker, app: App, note: Any, ran: list[str]
) -> None:
    with running(app, threads=1):
        cancelled = [note.options(delay=0.5).send() for _ in range(3)]
        for sent in cancelled:
            sent.cancel()
        last = note.options(delay=0.75).send()
        wait_until(lambda: last.id in ran, what="the one that is not cancelled")
        assert ran == [last.id]
        # the id may be used again, later
        app.send(Message("note", QUEUE, b"{}", cancelled[0].id))
        wait_until(lambda: cancelled[0].id in ran, what="the same id again")
    assert vhost.count(QUEUE) == vhost.count(f"{QUEUE}.dead") == 0


def test_a_worker_that_starts_later_knows_what_was_cancelled(
    vhost: Broker, app: App, note: Any, ran: list[str]
) -> None:
    sents = [note.send() for _ in range(20)]
    for sent in sents[::2]:
        sent.cancel()
    with running(app, threads=4):
        wait_until(lambda: vhost.count(QUEUE) == 0 and len(ran) >= 10, what="all are settled")
    assert sorted(ran) == sorted(one.id for one in sents[1::2])
    assert vhost.count(f"{QUEUE}.dead") == 0


def test_a_worker_that_has_lost_its_connections_reads_the_cancels_that_it_has_missed(
    vhost: Broker, app: App, note: Any
) -> None:
    with running(app, threads=1) as worker:
        known: Any = worker.process.limits.is_cancelled
        vhost.close_connections()
        for count in (1, 2):
            note.options(delay=60).send().cancel()
            wait_until(lambda count=count: len(known.__self__) == count, 30, "the worker knows it")  # type: ignore[misc]


def test_the_cancel_of_a_far_message_waits_in_the_ladder_and_arrives_before_it(
    vhost: Broker, app: App, note: Any, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amqpworker.routing.cancel_messages.LEAD", 0.5)
    with running(app, threads=1) as worker:
        known: Any = worker.process.limits.is_cancelled
        note.options(delay=1.5).send().cancel()
        last = note.options(delay=1.5).send()
        began = time.monotonic()
        assert vhost.count("amqpworker.delay.03") == 3
        wait_until(lambda: len(known.__self__) == 1, what="the cancel arrives")
        assert 0.7 < time.monotonic() - began < 1.4
        wait_until(lambda: last.id in ran, what="what is not cancelled")
    assert ran == [last.id]


def test_a_result_of_a_cancelled_message_is_a_failure_unless_there_is_one(
    make_app: Callable[..., App], tmp_path: Path
) -> None:
    app = make_app(results=f"sqlite:///{tmp_path}/results.db")
    ran: list[str] = []

    @app.task(name="note", queue=QUEUE)
    def note() -> int:
        ran.append(current().id)
        return 7

    @app.task(name="anote", queue=QUEUE)
    async def anote() -> int:
        return note()

    with running(app, threads=1):
        for task in (note, anote):
            done = task.send()
            assert done.result() == 7
            done.cancel()
            assert done.result() == 7
            sent = task.options(delay=0.5).send()
            sent.cancel()
            assert sent.status().state == "pending", "it is announced"
            with pytest.raises(TaskFailed) as failed:
                sent.result()
            assert failed.value.reason == "cancelled"
    assert len(ran) == 2


def test_with_a_store_a_delayed_task_does_not_start_although_the_worker_has_not_read_its_cancel(
    make_app: Callable[..., App], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app(results=f"sqlite:///{tmp_path}/results.db")

    @app.task(name="note", queue=QUEUE)
    def note() -> None: ...

    @app.task(name="anote", queue=QUEUE)
    async def anote() -> None: ...

    # as a worker whose follower has lost its connection
    monkeypatch.setattr("amqpworker.worker.cancels.Cancels.add", lambda *_: None)
    with running(app, threads=1):
        for task in (note, anote):
            sent = task.options(delay=0.25).send()
            sent.cancel()
            with pytest.raises(TaskFailed, match="cancelled"):
                sent.result()


@pytest.mark.parametrize("options", [{}, {"time_limit": 60}])
def test_what_runs_sees_its_cancel_within_a_second_and_with_force_it_is_ended(
    vhost: Broker, app: App, options: dict[str, Any]
) -> None:
    began = {"loop": threading.Event(), "wait": threading.Event()}
    ended: dict[str, tuple[float, str]] = {}

    def note(error: BaseException | None) -> None:
        ended[current().task] = time.monotonic(), type(error).__name__

    @app.task(name="loop", queue=QUEUE, retry=5, **options)
    def loop(force: bool) -> None:
        began["loop"].set()
        ends = time.monotonic() + 20
        try:
            while time.monotonic() < ends and (force or not current().cancelled):
                time.sleep(0.01)
        except TaskCancelled as error:
            note(error)
            raise
        note(None)

    @app.task(name="wait", queue=QUEUE, retry=5, **options)
    async def wait(force: bool) -> None:
        began["wait"].set()
        try:
            while force or not current().cancelled:
                await asyncio.sleep(0.01)
        except BaseException as error:
            note(error)
            raise
        note(None)

    with running(app, threads=2):
        for task in (loop, wait):
            for force, error in ((False, "NoneType"), (True, "CancelledError" if task is wait else "TaskCancelled")):
                began[task.name].clear()
                sent = task.send(force=force)
                assert began[task.name].wait(10)
                at = time.monotonic()
                sent.cancel(force=force)
                wait_until(lambda name=task.name: name in ended, what="its end")  # type: ignore[misc]
                when, kind = ended.pop(task.name)
                assert when - at < 1.0
                assert kind == error
        wait_until(lambda: vhost.count(QUEUE) == 0, what="all are settled")
    assert vhost.count(f"{QUEUE}.dead") == 0


def test_a_coroutine_cancels_and_anything_may_be_cancelled_by_its_id(app: App, note: Any, vhost: Broker) -> None:
    async def cancel() -> None:
        async with app:
            sent = await note.options(delay=60).asend()
            await sent.acancel()

    asyncio.run(cancel())
    until = announce(app, ["never-sent"], due=time.time() + 60)
    assert until > time.time() + 7 * 86_400
    entries: list[bytes] = []
    with raw_channel(vhost.url) as channel:
        channel.basic_qos(prefetch_count=10)
        for method, _, body in channel.consume("amqpworker.cancelled", arguments={"x-stream-offset": "first"}):
            channel.basic_ack(method.delivery_tag)
            entries.append(body)
            if len(entries) == 2:
                break
    assert decode_cancel(entries[1]).id == "never-sent"


def test_without_the_stream_a_cancel_is_an_error_that_names_the_command(
    make_app: Callable[..., App], vhost: Broker
) -> None:
    app = make_app(declare=False)
    with raw_channel(vhost.url) as channel:
        channel.exchange_declare("amqpworker.tasks", "direct", durable=True)
    with pytest.raises(Unroutable, match="amqpworker topology declare"):
        announce(app, ["m-1"])
