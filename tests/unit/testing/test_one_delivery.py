"""One message of an app through the worker's pipeline, without a broker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from amqpworker import App, RetryLater, Run, current
from amqpworker.model.clock import Clock
from amqpworker.model.outcome import Dead, Done, Postpone, Retry
from amqpworker.testing.one_delivery import run_one


@pytest.fixture
def app() -> App:
    return App("amqp://127.0.0.1:1/")


def test_a_message_runs_and_is_acknowledged(app: App) -> None:
    seen: list[int] = []

    @app.task(name="one", queue="numbers")
    def note(number: int) -> None:
        seen.append(number)
        assert (current().attempt, current().queue) == (1, "numbers")

    taken = run_one(app, note.message(21))
    assert (seen, taken.outcome, taken.published, taken.steps) == ([21], Done(), (), (("ack", 1, False),))
    assert taken.event.task == note.name


@pytest.mark.parametrize("isolated", [False, True])
def test_the_dead_letter_of_a_failure_is_published_before_its_message_is_acknowledged(app: App, isolated: bool) -> None:
    @app.task(name="one", queue="numbers", retry=None, isolated=isolated)
    def fail() -> None:
        raise OSError("no route")

    taken = run_one(app, fail.message())
    assert isinstance(taken.outcome, Dead)
    assert [step[0] for step in taken.steps] == ["publish", "ack"]
    (letter,) = taken.published
    assert (letter.exchange, letter.routing_key) == ("amqpworker.dead", "numbers")
    assert (letter.properties.headers or {})["aw-error"] == "no route"


def test_coroutines_and_middleware_of_both_kinds_run_too(app: App) -> None:
    events: list[str] = []

    @contextmanager
    def sync(run: Run) -> Iterator[None]:
        events.append(f"enters {run.task}")
        yield

    @asynccontextmanager
    async def asynchronous(_run: Run) -> AsyncIterator[None]:
        events.append("enters")
        yield
        events.append("leaves")

    app = App("amqp://127.0.0.1:1/", middleware=[sync, asynchronous])

    @app.task(name="later", queue="numbers", retry=2)
    async def later() -> None:
        raise RetryLater(5)

    @app.task(name="now", queue="numbers")
    def now() -> None: ...

    assert isinstance(run_one(app, later.message()).outcome, Retry)
    assert run_one(app, now.message()).outcome == Done()
    assert events == ["enters later", "enters", "enters now", "enters", "leaves"]


def test_a_result_is_in_the_store_of_the_app(tmp_path: Path) -> None:
    app = App("amqp://127.0.0.1:1/", results=f"sqlite:///{tmp_path}/results.db")

    @app.task(name="one", queue="numbers")
    def double(number: int) -> int:
        return 2 * number

    message = double.message(21)
    assert run_one(app, message).outcome == Done(b"42")
    store = app.store()
    assert store is not None
    assert store.get([message.id])[message.id].state == "done"
    app.close()


def test_the_clock_is_a_parameter(app: App) -> None:
    @app.task(name="one", queue="numbers")
    def nothing() -> None: ...

    times = iter([1000.0, 1000.5, 1001.0, 1001.5])
    taken = run_one(app, nothing.options(delay=60).message(), Clock(now=lambda: next(times)))
    assert isinstance(taken.outcome, Postpone)
    assert taken.outcome.delay == pytest.approx(59.5)
