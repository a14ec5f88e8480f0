"""Results and answers of a running worker: stored and replied before their message is acknowledged."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pika
import pytest

from amqpworker import App, CallTimeout, InvalidResult, ResultTimeout, TaskFailed, current
from amqpworker.errors import ConfigError, ResultStoreError
from amqpworker.results.row import ResultRow
from amqpworker.worker.outcomes import CLOCKS_APART
from tests.support import Broker, wait_until
from tests.workers import running

QUEUE = "work"


@pytest.fixture
def storing(make_app: Callable[..., App], tmp_path: Path) -> App:
    """An app that stores results."""
    return make_app(results=f"sqlite:///{tmp_path}/results.db")


def test_a_result_comes_back_typed(vhost: Broker, storing: App) -> None:
    @storing.task(name="halve", queue=QUEUE)
    def halve(n: int) -> tuple[float, list[bytes]]:
        return n / 2, [b"\xff"]

    with running(storing, threads=2):
        sent = storing.send_many(halve.message(n) for n in range(20))
        assert [one.result(timeout=10) for one in sent] == [(n / 2, [b"\xff"]) for n in range(20)]
        assert halve.options(timeout=10).call(3) == (1.5, [b"\xff"])
        assert {one.status().state for one in sent} == {"done"}
    assert vhost.count(QUEUE) == 0


def test_a_failure_is_a_result_too(vhost: Broker, storing: App) -> None:
    @storing.task(name="fail", queue=QUEUE, retry=[0])
    def fail() -> int:
        raise LookupError("nothing there")

    with running(storing, threads=1):
        sent = fail.send()
        with pytest.raises(TaskFailed) as stored:
            sent.result(timeout=10)
        with pytest.raises(TaskFailed) as answered:
            fail.options(timeout=10).call()
        assert sent.status().state == "failed"
    for error in (stored.value, answered.value):
        assert (error.reason, error.error_type, error.text) == ("failed", "LookupError", "nothing there")
        assert "in fail" in error.traceback
    vhost.wait_for_count(f"{QUEUE}.dead", 2)


def test_what_has_not_ended_is_pending(vhost: Broker, storing: App) -> None:
    go = threading.Event()

    @storing.task(name="hold", queue=QUEUE)
    def hold() -> int:
        go.wait(30)
        return 1

    with running(storing, threads=1):
        sent = hold.send()
        assert sent.status().state == "pending"
        with pytest.raises(ResultTimeout):
            sent.result(timeout=0.05)
        go.set()
        assert sent.result(timeout=10) == 1


def test_a_task_that_stores_nothing_leaves_nothing(vhost: Broker, storing: App, tmp_path: Path) -> None:
    ended: list[str] = []

    @storing.task(name="quiet", queue=QUEUE, result=False, retry=None)
    def quiet(fails: bool) -> int:
        ended.append(current().id)
        if fails:
            raise ValueError
        return 5

    with running(storing, threads=1):
        first = quiet.send(False)
        quiet.send(True)
        vhost.wait_for_count(f"{QUEUE}.dead", 1)
        for ask in (first.status, first.result):
            with pytest.raises(ConfigError, match="result=False"):
                ask()
        assert quiet.options(timeout=10).call(False) == 5, "who calls is answered all the same"
    assert len(ended) == 3
    with sqlite3.connect(tmp_path / "results.db") as file:
        assert file.execute("SELECT count(*) FROM result_rows").fetchone() == (0,)
    file.close()


def test_a_result_is_there_for_its_time_to_live_and_then_pending_again(
    vhost: Broker, make_app: Callable[..., App], tmp_path: Path
) -> None:
    app = make_app(results=f"sqlite:///{tmp_path}/results.db", result_ttl=0.4)

    @app.task(name="give", queue=QUEUE)
    def give() -> int:
        return 1

    with running(app, threads=1):
        sent = give.send()
        assert sent.result(timeout=10) == 1
        wait_until(lambda: sent.status().state == "pending", what="it expires")


class Unsteady:
    """A store whose first attempts to put fail."""

    def __init__(self, inner: Any, failures: int) -> None:
        self.inner = inner
        self.failures = failures
        self.attempts = 0

    def put(self, rows: Sequence[ResultRow]) -> Mapping[str, ResultStoreError]:
        self.attempts += 1
        if self.attempts <= self.failures:
            return {row.id: ResultStoreError("the disk is full") for row in rows}
        return self.inner.put(rows)  # type: ignore[no-any-return]

    def expire(self, now: float, most: int) -> int:
        return self.inner.expire(now, most)  # type: ignore[no-any-return]


def test_a_store_that_fails_at_first_is_asked_again_and_the_task_runs_once(
    vhost: Broker, storing: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[int] = []
    store = Unsteady(storing.store(), failures=2)

    @storing.task(name="give", queue=QUEUE)
    def give() -> int:
        ran.append(1)
        return 7

    with running(storing, threads=1) as worker:
        monkeypatch.setattr(worker.process.settler.storer, "_store", store)
        assert give.send().result(timeout=10) == 7
    assert ran == [1]
    assert store.attempts == 3
    assert vhost.count(QUEUE) == 0


def test_a_message_whose_result_cannot_be_stored_is_not_acknowledged(
    vhost: Broker, storing: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[int] = []

    @storing.task(name="give", queue=QUEUE)
    def give() -> int:
        ran.append(1)
        return 7

    with running(storing, threads=1) as worker:
        monkeypatch.setattr(worker.process.settler.storer, "_store", Unsteady(None, 10**6))
        sent = give.send()
        wait_until(lambda: ran, what="it has run")
    vhost.wait_for_count(QUEUE, 1)
    with running(storing, threads=1):
        assert sent.result(timeout=10) == 7
    assert ran == [1, 1]


def test_while_results_cannot_be_stored_nothing_new_starts_and_each_task_runs_once(
    vhost: Broker, storing: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[int] = []

    @storing.task(name="give", queue=QUEUE)
    def give(number: int) -> int:
        ran.append(number)
        return number

    @storing.task(name="give_later", queue=QUEUE)
    async def give_later(number: int) -> int:
        return give(number)

    store = Unsteady(storing.store(), failures=10**6)
    with running(storing, threads=2, prefetch=40) as worker:
        monkeypatch.setattr(worker.process.settler.storer, "_store", store)
        sents = [give.send(number) for number in range(3)]
        channels = worker.process.receiver._channels
        wait_until(lambda: all(one.is_cancelled for one in channels), what="nothing is consumed")
        assert worker.process.settler.problem == "the disk is full"
        sents += [task.send(number) for number in range(3, 7) for task in (give, give_later)]
        assert vhost.count(QUEUE) == 8
        assert sorted(ran) == [0, 1, 2]
        store.failures = 0
        assert [sent.result(timeout=20) for sent in sents] == [0, 1, 2, 3, 3, 4, 4, 5, 5, 6, 6]
        assert worker.process.settler.problem is None
    assert len(ran) == 11


@pytest.mark.parametrize("kind", ["thread", "coroutine"])
def test_a_result_that_the_store_can_never_hold_is_refused_and_its_task_not_repeated(
    vhost: Broker, storing: App, kind: str
) -> None:
    ran: list[int] = []

    def give(size: int) -> str:
        ran.append(size)
        return "x" * size

    async def give_later(size: int) -> str:
        return give(size)

    task: Any = storing.task(give if kind == "thread" else give_later, name="give", queue=QUEUE)
    store: Any = storing.store()
    store._writer.use(lambda connect: connect().setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 5000))
    with running(storing, threads=1):
        small = task.send(100)
        assert small.result(timeout=10) == "x" * 100
        sent = task.send(6000)
        with pytest.raises(InvalidResult, match=r"The task is done, and its result cannot be had: .* too big"):
            sent.result(timeout=10)
        assert sent.status().state == "done"
        assert task.call(6000) == "x" * 6000, "an answer needs no store"
        assert task.send(10).result(timeout=10) == "x" * 10, "its thread continues"
    assert ran == [100, 6000, 6000, 10]
    assert vhost.count(QUEUE) == vhost.count(f"{QUEUE}.dead") == 0


def test_the_result_of_an_id_that_is_used_again_is_that_of_its_own_message(vhost: Broker, storing: App) -> None:
    @storing.task(name="double", queue=QUEUE)
    def double(n: int) -> int:
        return 2 * n

    with running(storing, threads=1):
        first = double.options(id="order-17").send(1)
        assert first.result(timeout=10) == 2
        second = double.options(id="order-17", delay=0.5).send(2)
        assert second.status().state == "pending"
        assert second.result(timeout=10) == 4
        assert first.status().state == "pending", "its id was used again"


def test_the_result_of_a_hand_made_message_is_taken_by_its_id(vhost: Broker, storing: App) -> None:
    @storing.task(name="double", queue=QUEUE)
    def double(n: int) -> int:
        return 2 * n

    sent = double.options(id="order-17", queue="elsewhere").message(1)
    storing.queue("elsewhere")
    mine = storing.send(sent)
    with running(storing, queues=(QUEUE,), threads=1):
        told = pika.BasicProperties(type="double", message_id="order-17")
        assert vhost.publish("amqpworker.tasks", QUEUE, b'{"n": 21}', told)
        assert mine.result(timeout=10) == 42


# ---- answers --------------------------------------------------------------------------------------------------------


def test_a_call_that_is_too_late_is_dropped_and_runs_nothing(vhost: Broker, make_app: Callable[..., App]) -> None:
    app = make_app()
    ran: list[int] = []
    go = threading.Event()

    @app.task(name="hold", queue=QUEUE)
    def hold(n: int) -> None:
        ran.append(n)
        go.wait(30)

    with running(app, threads=1):
        hold.send(1)
        with pytest.raises(CallTimeout):
            hold.options(timeout=0.3).call(2)
        late = time.monotonic() + CLOCKS_APART
        wait_until(lambda: time.monotonic() > late, CLOCKS_APART * 2, "clocks that are apart cannot be the reason")
        go.set()
        wait_until(lambda: vhost.count(QUEUE) == 0, what="the queue is empty")
        hold.send(3)
        wait_until(lambda: 3 in ran, what="the next runs")
    assert ran == [1, 3]
    assert vhost.count(f"{QUEUE}.dead") == 0


def test_an_answer_to_a_caller_that_is_gone_does_not_hold_up_the_worker(vhost: Broker, app: App) -> None:
    ran: list[int] = []

    @app.task(name="give", queue=QUEUE)
    def give(n: int) -> int:
        ran.append(n)
        return n

    with running(app, threads=1):
        for reply_to in ("amq.rabbitmq.reply-to.g1h2AA.gone", "no such queue"):
            told = {"type": "give", "reply_to": reply_to}
            assert vhost.management.publish(vhost.vhost, "amqpworker.tasks", QUEUE, '{"n": 1}', told)
        wait_until(lambda: len(ran) == 2, what="both run")
        assert give.options(timeout=10).call(5) == 5, "the publishing channel is well"
    assert vhost.count(QUEUE) == 0


def test_a_reply_that_cannot_leave_is_given_up_and_its_message_acknowledged(
    vhost: Broker, make_app: Callable[..., App], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection that publishes is away, the one that consumes is not."""
    monkeypatch.setattr("amqpworker.worker.replying.REPLY_TIMEOUT", 0.5)
    app, caller = make_app(), make_app()
    go = threading.Event()
    ran: list[int] = []

    @app.task(name="give", queue=QUEUE)
    def give() -> int:
        ran.append(1)
        go.wait(30)
        return 1

    @caller.remote(name="give", queue=QUEUE)
    def ask() -> int: ...

    with running(app, threads=1) as worker:
        publisher = worker.process.publisher
        failed: list[BaseException] = []

        def call() -> None:
            try:
                ask.options(timeout=3).call()
            except CallTimeout as error:
                failed.append(error)

        calling = threading.Thread(target=call)
        calling.start()
        wait_until(lambda: ran, what="it runs")
        monkeypatch.setattr(publisher, "on_wake", lambda: None)  # nothing is written any more
        began = time.monotonic()
        go.set()
        wait_until(lambda: worker.process.runners.is_idle and worker.process.settler.is_idle, what="it is settled")
        assert 0.4 < time.monotonic() - began < 3
        monkeypatch.undo()
        calling.join()
        assert failed
    assert vhost.count(QUEUE) == 0
    assert ran == [1]


# ---- coroutines -----------------------------------------------------------------------------------------------------


def test_coroutines_run_side_by_side_within_their_slots(vhost: Broker, storing: App) -> None:
    now, most = [0], [0]

    @storing.task(name="step", queue=QUEUE)
    async def step(n: int) -> str:
        now[0] += 1
        most[0] = max(most[0], now[0])
        await asyncio.sleep(0.02)
        now[0] -= 1
        return f"{n} in {current().attempt}"

    with running(storing, threads=1, async_tasks=6):
        sent = storing.send_many(step.message(n) for n in range(30))
        assert [one.result(timeout=10) for one in sent] == [f"{n} in 1" for n in range(30)]
    assert most[0] == 6
    assert vhost.count(QUEUE) == 0


def test_a_coroutine_that_fails_is_retried_and_dead_as_others_are(vhost: Broker, storing: App) -> None:
    attempts: list[int] = []

    @storing.task(name="fail", queue=QUEUE, retry=[0.125])
    async def fail() -> None:
        attempts.append(current().attempt)
        await asyncio.sleep(0)
        raise OSError("away")

    with running(storing, threads=1):
        with pytest.raises(TaskFailed, match="away"):
            fail.send().result(timeout=10)
        letter = vhost.wait_for_message(f"{QUEUE}.dead")
    assert attempts == [1, 2]
    assert "in fail" in letter.headers["aw-traceback"]


def test_a_coroutine_answers_its_caller(vhost: Broker, app: App) -> None:
    @app.task(name="double", queue=QUEUE)
    async def double(n: int) -> int:
        await asyncio.sleep(0)
        return 2 * n

    with running(app, threads=1):
        assert double.options(timeout=10).call(21) == 42
