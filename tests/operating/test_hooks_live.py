"""Hooks against a real broker: after each way in which a message can end, in the worker, once."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pika
import pytest

from amqpworker import App, DeadLetter, Reject, Retried, Run, TaskFailed, current
from amqpworker.lifecycle import in_io_thread
from amqpworker.model.headers import now_text
from tests.support import Broker, wait_until
from tests.workers import running

QUEUE = "work"


class Calls:
    """Notes each call of a hook: which, and what of its argument matters here."""

    def __init__(self) -> None:
        self.notes: list[tuple[str, ...]] = []

    def note(self, *what: object) -> None:
        assert not in_io_thread()
        self.notes.append(tuple(map(str, what)))

    def wait_for(self, *expected: tuple[str, ...], timeout: float = 20.0) -> None:
        wait_until(lambda: len(self.notes) >= len(expected), timeout, f"{expected} were called")
        assert sorted(self.notes) == sorted(expected)


@pytest.fixture
def calls() -> Calls:
    return Calls()


def test_each_hook_is_called_with_what_it_reports_the_hooks_of_the_task_first(
    vhost: Broker, app: App, calls: Calls
) -> None:
    @app.task(name="double", queue=QUEUE)
    def double(number: int) -> int:
        return number * 2

    @app.task(name="flaky", queue=QUEUE, retry=[0])
    async def flaky() -> str:
        if current().attempt == 1:
            raise OSError("away")
        raise Reject("never")

    @double.on_success
    def of_task(run: Run, value: int) -> None:
        assert current() is run
        calls.note("task", run.task, value)
        raise ValueError("changes nothing")

    @app.on_success
    async def of_app(run: Run, value: object) -> None:
        calls.note("app", run.task, value)

    @app.on_retry
    def again(retried: Retried) -> None:
        calls.note("again", retried.attempt, retried.error_type, retried.error, retried.delay)

    @flaky.on_dead
    async def died(letter: DeadLetter) -> None:
        calls.note("died", letter.reason, letter.attempt, letter.error, letter.queue)

    with running(app, threads=1):
        double.send(21)
        wait_until(lambda: len(calls.notes) == 2)
        assert calls.notes == [("task", "double", "42"), ("app", "double", "42")]
        calls.notes.clear()
        flaky.send()
        calls.wait_for(("again", "1", "OSError", "away", "0.0"), ("died", "rejected", "2", "never", "work.dead"))
        assert vhost.wait_for_message("work.dead").headers["aw-attempt"] == 2


def test_when_a_hook_is_called_the_letter_is_in_its_queue_the_result_stored_and_the_message_acknowledged(
    vhost: Broker, make_app: Callable[..., App], calls: Calls, tmp_path: Path
) -> None:
    app = make_app(results=f"sqlite:///{tmp_path / 'results.db'}")

    @app.task(name="fail", queue=QUEUE, retry=None)
    def fail() -> None:
        raise OSError("away")

    @app.task(name="work", queue=QUEUE)
    def work() -> list[int]:
        return [1]

    sent: dict[str, Any] = {}

    @app.on_dead
    def died(letter: DeadLetter) -> None:
        with pytest.raises(TaskFailed, match="away"):
            sent["fail"].result(timeout=0)
        calls.note("dead", vhost.count("work.dead"))

    @app.on_success
    def done(_run: Run, value: list[int]) -> None:
        assert sent["work"].result(timeout=0) == value
        calls.note("done")

    sent["fail"], sent["work"] = fail.send(), work.send()
    with running(app, threads=1):
        calls.wait_for(("dead", "1"), ("done",))
    assert vhost.count("work") == 0


def test_messages_that_never_run_have_hooks_too(vhost: Broker, app: App, calls: Calls) -> None:
    @app.task(name="late", queue=QUEUE)
    def late(number: int) -> None: ...

    @late.on_dead
    def of_task(letter: DeadLetter) -> None:
        calls.note("task", letter.reason)

    @app.on_dead
    def of_app(letter: DeadLetter) -> None:
        calls.note("app", letter.reason, letter.id)

    late.options(expires=0.05, id="m-1").send(1)
    for task, name in (("late", "m-2"), ("unknown", "m-3")):
        # The unknown one has waited for longer than ten minutes.
        headers = {"aw-unknown-since": now_text(time.time() - 700)}
        properties = pika.BasicProperties(type=task, message_id=name, headers=headers)
        vhost.publish("amqpworker.tasks", QUEUE, b'{"number":"x"}', properties)
    sent = time.time()
    wait_until(lambda: time.time() > sent + 0.05)
    with running(app, threads=1):
        calls.wait_for(
            ("task", "expired"),
            ("app", "expired", "m-1"),
            ("task", "malformed"),
            ("app", "malformed", "m-2"),
            ("app", "unknown-task", "m-3"),
        )


def test_a_drain_waits_for_hooks_within_its_time(app: App, calls: Calls, caplog: pytest.LogCaptureFixture) -> None:
    release = threading.Event()

    @app.task(name="work", queue=QUEUE)
    def work(seconds: float) -> float:
        return seconds

    @app.on_success
    def slow(_run: Run, value: float) -> None:
        calls.note("began")
        release.wait(value)
        calls.note("ended")

    with running(app, threads=1, drain_timeout=20):
        work.send(0.5)
        calls.wait_for(("began",))
    assert calls.notes[-1] == ("ended",)
    began = time.monotonic()
    with running(app, threads=1, drain_timeout=0.3):
        work.send(30)
        wait_until(lambda: len(calls.notes) == 3)
    assert time.monotonic() - began < 5
    assert "hooks_abandoned" in caplog.text
    release.set()


def test_hooks_of_tasks_beyond_their_hard_limit_are_called_before_the_process_ends(
    vhost: Broker, make_app: Callable[..., App], calls: Calls
) -> None:
    app = make_app()
    open_now: list[bool] = []

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        open_now.append(True)
        yield
        open_now.clear()

    app.lifespan = lifespan
    release = threading.Event()

    @app.task(name="dies", queue=QUEUE, retry=None, hard_limit=0.5)
    def dies() -> None:
        release.wait(30)

    @app.task(name="returns", queue=QUEUE, retry=[0], hard_limit=0.5)
    def returns() -> None:
        release.wait(30)

    @app.on_dead
    async def died(letter: DeadLetter) -> None:
        calls.note("dead", letter.reason, bool(open_now))

    @app.on_retry
    async def again(retried: Retried) -> None:
        calls.note("again", retried.error_type, retried.delay, bool(open_now))

    with running(app, threads=2) as worker:
        dies.send()
        returns.send()
        worker._thread.join(20)
        assert not worker._thread.is_alive(), "it ends by itself"
    release.set()
    calls.wait_for(
        ("dead", "timeout", "True"),
        ("again", "TimeLimitExceeded", "3.0", "False"),
    )
