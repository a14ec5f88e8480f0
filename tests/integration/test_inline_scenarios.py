"""What users do with tasks has the same results inline, without a broker, and with a worker on a broker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import pytest

from amqpworker import (
    App,
    DeadLetter,
    InvalidArguments,
    Message,
    Reject,
    Retried,
    RetryLater,
    Run,
    Sent,
    TaskFailed,
    Unroutable,
    current,
)
from amqpworker.testing import Inline, running_inline
from amqpworker.testing.moved_app import moved_app
from amqpworker.testing.workers import Workers
from tests.conftest import fresh_vhost
from tests.nodes import Node
from tests.support import wait_until

seen: list[Any] = []
"""What the tasks of a scenario have noted."""


@contextmanager
def noting(run: Run) -> Iterator[None]:
    if "noted" in run.headers:
        seen.append(f"enters {run.attempt}")
    yield


app = App("amqp://127.0.0.1:1/", results="sqlite:///never.db", middleware=[noting])


@app.task(name="add", queue="numbers")
def add(number: int, other: int = 1) -> int:
    seen.append((number, other))
    return number + other


@app.task(name="weekday", queue="dates")
def weekday(day: date) -> dict[str, date]:
    return {"next": day + timedelta(days=7)}


@app.task(name="halve", queue="numbers")
async def halve(number: int) -> float:
    await asyncio.sleep(0)
    return number / 2


@app.task(name="quarter", queue="numbers")
async def quarter(number: int) -> float:
    return await halve.acall(await halve.acall(number))  # type: ignore[arg-type]


@app.task(name="flaky", queue="failures", retry=[0.25, 0.25])
def flaky(fail_until: int) -> int:
    run = current()
    seen.append((run.attempt, run.first_run, run.id))
    if run.attempt < fail_until:
        raise OSError(f"attempt {run.attempt}")
    return run.attempt


@app.task(name="reject", queue="failures")
def reject() -> None:
    raise Reject("not wanted")


@app.task(name="later", queue="failures", retry=None)
def later() -> int:
    seen.append(current().attempt)
    if len(seen) < 3:
        raise RetryLater(0.25, count=False)
    return len(seen)


@app.task(name="parent", queue="numbers")
def parent(count: int) -> None:
    for number in range(count):
        add.send(number)
    seen.append("parent")


@app.on_success
def on_success(run: Run, value: Any) -> None:
    if run.headers.get("hooks"):
        seen.append(("success", value))


@flaky.on_retry
def on_retry(retried: Retried) -> None:
    if retried.run.headers.get("hooks"):
        seen.append(("retry", retried.error))


@app.on_dead
def on_dead(letter: DeadLetter) -> None:
    if (letter.message.properties.headers or {}).get("hooks"):
        seen.append(("dead", letter.reason))


class Side(Protocol):
    """Where a scenario runs."""

    def until(self, condition: Callable[[], Any], within: float = 1.0) -> None:
        """Let up to `within` seconds pass until the condition is true, and fail otherwise."""

    def dead(self, task: str) -> list[DeadLetter]:
        """Return the dead letters of a task."""


class InlineSide:
    def __init__(self, inline: Inline) -> None:
        self._inline = inline

    def until(self, condition: Callable[[], Any], within: float = 1.0) -> None:
        self._inline.advance(within)
        assert condition()

    def dead(self, task: str) -> list[DeadLetter]:
        return self._inline.dead(task)


class BrokerSide:
    def until(self, condition: Callable[[], Any], within: float = 1.0) -> None:
        wait_until(condition, within + 10.0)

    def dead(self, task: str) -> list[DeadLetter]:
        return list(app.dead.list(task=task))


@pytest.fixture(scope="module")
def worker(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerSide]:
    """A worker of the app on a virtual host, for all scenarios."""
    results = f"sqlite:///{tmp_path_factory.mktemp('results')}/results.db"
    with fresh_vhost(node, "scenarios") as broker, moved_app(app, f"{__name__}:app", broker.url, results):
        workers = Workers(app)
        try:
            workers()
            yield BrokerSide()
        finally:
            workers.stop()


@pytest.fixture(params=["broker", "inline"])
def side(request: pytest.FixtureRequest) -> Iterator[Side]:
    seen.clear()
    with ExitStack() as stack:
        if request.param == "broker":
            yield request.getfixturevalue("worker")
        else:
            yield InlineSide(stack.enter_context(running_inline(app)))


def ended(sent: Sent[Any]) -> bool:
    return sent.status().stored_at is not None and sent.status().state in ("done", "failed", "cancelled")


def test_a_sent_task_runs_and_its_result_is_stored(side: Side) -> None:
    sent = add.send(20, other=22)
    assert sent.result() == 42
    assert seen == [(20, 22)]


def test_a_call_returns_the_types_of_the_hints(side: Side) -> None:
    assert weekday.call(date(2026, 11, 30)) == {"next": date(2026, 12, 7)}


def test_a_failure_is_retried_after_the_delays_of_its_policy(side: Side) -> None:
    sent = flaky.send(3)
    side.until(lambda: len(seen) == 3)
    assert [attempt for attempt, _, _ in seen] == [1, 2, 3]
    assert all(abs(one[1] - other[1]) < 0.01 and one[2] == other[2] == sent.id for one, other in pairwise(seen))
    assert sent.result() == 3


def test_a_task_that_fails_too_often_is_a_dead_letter_with_its_error(side: Side) -> None:
    sent = flaky.send(9)
    side.until(lambda: ended(sent))
    with pytest.raises(TaskFailed, match="attempt 3"):
        sent.result()
    side.until(lambda: any(letter.id == sent.id for letter in side.dead("flaky")))
    (letter,) = [letter for letter in side.dead("flaky") if letter.id == sent.id]
    assert (letter.reason, letter.error_type, letter.error, letter.attempt) == ("failed", "OSError", "attempt 3", 3)
    assert (letter.queue, "flaky" in letter.traceback) == ("failures.dead", True)


def test_a_rejected_message_is_a_dead_letter_at_once(side: Side) -> None:
    reject.send()
    side.until(
        lambda: [(letter.reason, letter.error) for letter in side.dead("reject")] == [("rejected", "not wanted")]
    )


def test_a_task_can_ask_to_run_later_without_counting_an_attempt(side: Side) -> None:
    sent = later.send()
    side.until(lambda: len(seen) == 3)
    assert seen == [1, 1, 1]
    assert sent.result() == 3


def test_a_delayed_message_runs_when_it_is_due_and_not_before(side: Side) -> None:
    sent = add.options(delay=0.5).send(1)
    at = add.options(at=datetime.now(UTC) + timedelta(seconds=0.25)).send(2)
    assert seen == []
    side.until(lambda: ended(sent) and ended(at))
    assert seen == [(2, 1), (1, 1)]


def test_a_message_that_starts_too_late_is_a_dead_letter(side: Side) -> None:
    sent = add.options(expires=datetime.now(UTC) - timedelta(seconds=1)).send(1)
    side.until(lambda: [letter.reason for letter in side.dead("add") if letter.id == sent.id] == ["expired"])
    assert seen == []


def test_arguments_that_do_not_fit_are_refused_by_the_sender_and_by_the_worker(side: Side) -> None:
    with pytest.raises(InvalidArguments, match="number"):
        add.send("one")  # type: ignore[arg-type]
    message: Message[Any] = Message("add", "numbers", json.dumps({"number": "one"}).encode(), "by-hand")
    app.send(message)
    side.until(lambda: [letter.reason for letter in side.dead("add") if letter.id == "by-hand"] == ["malformed"])
    assert seen == []


def test_a_queue_that_does_not_exist_is_an_error_of_send(side: Side) -> None:
    with pytest.raises(Unroutable, match="nmbers"):
        add.options(queue="nmbers").send(1)
    app.check()


def test_coroutines_send_and_call_and_are_tasks(side: Side) -> None:
    async def use() -> list[Any]:
        async with app:
            sent = await add.asend(1)
            return [await sent.aresult(), *await asyncio.gather(halve.acall(3), quarter.acall(4))]

    assert asyncio.run(use()) == [2, 1.5, 1.0]


def test_what_a_task_sends_runs_too(side: Side) -> None:
    parent.send(3)
    side.until(lambda: len(seen) == 4)
    assert set(seen) == {"parent", (0, 1), (1, 1), (2, 1)}


def test_many_messages_are_sent_at_once(side: Side) -> None:
    sents = app.send_many(add.message(number) for number in range(20))
    assert [sent.result() for sent in sents] == list(range(1, 21))
    assert all(isinstance(each, Sent) for each in app.send_each([add.message(1)]))
    side.until(lambda: len(seen) == 21)


def test_hooks_are_called_for_success_retry_and_death(side: Side) -> None:
    add.options(headers={"hooks": True}).send(1)
    side.until(lambda: ("success", 2) in seen)
    seen.clear()
    flaky.options(headers={"hooks": True}).send(9)
    side.until(lambda: ("dead", "failed") in seen)
    assert [one for one in seen if one[0] == "retry"] == [("retry", "attempt 1"), ("retry", "attempt 2")]


def test_a_delayed_message_that_is_cancelled_does_not_run(side: Side) -> None:
    sent = add.options(delay=0.5).send(1)
    sent.cancel()
    side.until(lambda: ended(sent))
    assert seen == []
    with pytest.raises(TaskFailed, match="cancelled"):
        sent.result()


def test_headers_and_middleware_see_each_run(side: Side) -> None:
    add.options(headers={"noted": "yes"}).call(1)
    assert seen == ["enters 1", (1, 1)]


def test_the_caller_of_a_task_that_fails_gets_its_error(side: Side) -> None:
    with pytest.raises(TaskFailed, match="not wanted") as failed:
        reject.call()
    assert failed.value.reason == "rejected"


def test_the_app_is_as_it_was_after_both(tmp_path: Path) -> None:
    before = (app.url, app.results, app.producer, app.store(), app._async)
    with running_inline(app):
        add.send(1)
    with moved_app(app, f"{__name__}:app", "amqp://127.0.0.1:1/", None):
        assert app.results is None
    assert (app.url, app.results, app.producer, app.store(), app._async) == before
