"""An app that runs inline: when its messages run, what a test sees of them, and that nothing of it is left."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from amqpworker import (
    App,
    CallTimeout,
    ConfigError,
    InvalidArguments,
    QueueFull,
    ResultTimeout,
    Run,
    Settings,
    TaskFailed,
    TimeLimitExceeded,
    current,
    gather,
)
from amqpworker.task import Task
from amqpworker.testing import Inline, running_inline
from amqpworker.testing.inline_engine import running_engine

MAIN = threading.main_thread()


@pytest.fixture
def app() -> App:
    return App("amqp://127.0.0.1:1/", results="sqlite:///never-made.db")


@pytest.fixture
def inline(app: App) -> Iterator[Inline]:
    with running_inline(app) as running:
        yield running


@pytest.fixture
def seen(app: App) -> list[Any]:
    return []


@pytest.fixture
def note(app: App, seen: list[Any]) -> Any:
    @app.task(name="note", queue="notes")
    def note(text: str, number: int = 0) -> str:
        seen.append(text)
        return text

    return note


def test_a_task_runs_in_the_thread_that_sends_it(app: App, inline: Inline) -> None:
    threads = []

    @app.task(name="where", queue="notes")
    def where() -> None:
        threads.append(threading.current_thread())

    where.send()
    where.call()
    assert threads == [MAIN, MAIN]


def test_messages_wait_until_run_if_it_is_not_eager(app: App, note: Any, seen: list[Any]) -> None:
    with running_inline(app, eager=False) as inline:
        note.send("one")
        note.send("two")
        assert seen == []
        assert inline.run() == 2
        assert seen == ["one", "two"]
        assert inline.run() == 0
        note.send("three")
        assert note.call("four") == "four"  # its caller waits, so all that is in front of it runs
        assert seen == ["one", "two", "three", "four"]


def test_what_a_task_sends_runs_after_it_and_what_it_calls_at_once(app: App, inline: Inline, note: Any) -> None:
    order = []

    @app.task(name="outer", queue="notes")
    def outer() -> None:
        note.send("later")
        order.append(note.call("called"))
        order.append(current().task)

    outer.send()
    assert order == ["called", "outer"]
    assert [message.task for message in inline.sent()] == ["outer", "note", "note"]


def test_a_task_that_sends_itself_runs_once_for_each_message(app: App, inline: Inline) -> None:
    left = []

    @app.task(name="count", queue="notes")
    def count(number: int) -> None:
        left.append(number)
        if number:
            count.send(number - 1)

    count.send(300)
    assert left == list(range(300, -1, -1))


def test_each_retry_runs_at_its_time(app: App, inline: Inline) -> None:
    runs: list[float] = []

    @app.task(name="flaky", queue="notes", retry=[10, 100])
    def flaky() -> None:
        runs.append(current().started)
        assert current().first_run == pytest.approx(runs[0], abs=0.002)
        raise OSError("no")

    flaky.send()
    inline.advance(9)
    assert len(runs) == 1
    inline.advance(1)
    assert len(runs) == 2
    inline.advance(timedelta(hours=1))
    assert [round(later - runs[0]) for later in runs] == [0, 10, 110]
    (letter,) = inline.dead(flaky)
    assert (letter.attempt, letter.error, letter.queue, letter.position) == (3, "no", "notes.dead", 1)
    assert letter.failed_at is not None
    assert letter.failed_at.timestamp() == pytest.approx(runs[-1], abs=1)


def test_delays_and_expiry_follow_the_clock_of_the_test(inline: Inline, note: Any, seen: list[Any]) -> None:
    before = inline.now
    note.options(delay=1.3).send("delayed")
    note.options(delay=timedelta(days=400)).send("much later")
    (first, second) = inline.delayed()
    assert first.delay == pytest.approx(1.3, abs=0.002)
    assert first.arguments["text"] == "delayed"
    assert second.delay == pytest.approx(400 * 86400, abs=0.2)
    inline.advance(1.3)
    assert seen == ["delayed"]
    inline.advance(timedelta(days=400))
    assert seen == ["delayed", "much later"]
    assert inline.now - before > timedelta(days=400)
    with pytest.raises(InvalidArguments, match="seconds"):
        inline.advance(-1)


def test_a_message_expires_while_it_waits(app: App, note: Any, seen: list[Any]) -> None:
    with running_inline(app, eager=False) as inline:
        note.options(expires=60).send("late")
        note.options(expires=3600).send("in time")
        inline.advance(61)
        # It ran what was ready first: nothing was late by then.
        assert seen == ["late", "in time"]
        note.options(expires=5, at=datetime.now(UTC)).send("never")
    with running_inline(app) as inline:
        note.options(expires=datetime.now(UTC) - timedelta(1)).send("expired")
        assert [letter.reason for letter in inline.dead()] == ["expired"]


def test_sent_lists_messages_by_task_and_arguments(app: App, inline: Inline, note: Any) -> None:
    note.send("one", number=1)
    note.options(headers={"tenant": "acme"}, expires=30).send("two")
    note.call("three")
    one, two, three = inline.sent(note)
    assert (one.arguments, one.queue, one.delay, one.expires) == ({"text": "one", "number": 1}, "notes", 0.0, None)
    assert two.headers == {"tenant": "acme"}
    assert two.expires == pytest.approx(30, abs=0.01)
    assert (two.is_call, three.is_call) == (False, True)
    assert inline.sent("note", text="two") == [two]
    assert inline.sent(note, number=1, text="two") == []
    with pytest.raises(ConfigError, match=r"no parameter 'txt' \(did you mean text"):
        inline.sent(note, txt="two")
    with pytest.raises(ConfigError, match=r"no task 'note2' \(did you mean note"):
        inline.sent("note2")
    with pytest.raises(ConfigError, match="name the task"):
        inline.sent(text="two")

    @App("amqp://127.0.0.1:1/").task(name="elsewhere")
    def elsewhere() -> None: ...

    with pytest.raises(ConfigError, match="not one of the app"):
        inline.dead(elsewhere)


def test_messages_to_other_programs_are_seen_and_stay(app: App, inline: Inline) -> None:
    @app.remote(name="billing.charge", queue="billing")
    def charge(order: str) -> None:
        raise NotImplementedError

    charge.send("o-1")
    with pytest.raises(CallTimeout, match=r"billing\.charge.*within 5 s"):
        charge.options(timeout=5).call("o-2")
    assert [message.is_call for message in inline.sent(charge)] == [False, True]
    inline.advance(timedelta(days=10))
    assert (inline.dead(), inline.delayed()) == ([], [])


def test_a_delayed_message_whose_queue_does_not_exist_is_parked(inline: Inline, note: Any) -> None:
    note.options(queue="ntes", delay=60).send("text")
    inline.advance(60)
    (letter,) = inline.dead(note)
    assert (letter.reason, letter.queue, letter.by_broker) == ("no-queue", "amqpworker.parked", True)


def test_a_call_without_a_reply_in_time_ends_at_once(app: App, inline: Inline) -> None:
    @app.task(name="slow", queue="notes", retry=[5, 600])
    def slow() -> int:
        if current().attempt < 2 + ("patient" not in current().headers):
            raise OSError("no")
        return current().attempt

    assert slow.options(timeout=10, headers={"patient": True}).call() == 2
    with pytest.raises(CallTimeout, match="within 20 s"):
        slow.options(timeout=20).call()


def test_the_result_of_a_failure_is_an_error(app: App, inline: Inline) -> None:
    @app.task(name="fail", queue="notes", retry=None)
    def fail() -> None:
        raise OSError("no route")

    with pytest.raises(TaskFailed, match="no route"):
        fail.send().result()
    with pytest.raises(TaskFailed, match="no route"):
        fail.call()


def test_waiting_for_a_result_moves_the_clock(app: App, inline: Inline, note: Any) -> None:
    @app.task(name="flaky", queue="notes", retry=[5, 600])
    def flaky(attempts: int) -> int:
        if current().attempt < attempts:
            raise OSError("no")
        return current().attempt

    sents = [flaky.send(2), flaky.send(1)]
    assert sents[0].status().state == "pending"
    assert gather(sents) == [2, 1]
    assert flaky.send(2).result() == 2
    late = flaky.send(3)
    with pytest.raises(ResultTimeout, match="within 20 s"):
        late.result(timeout=20)
    assert late.result(timeout=1000) == 3
    assert app.result(late.id) == 3

    async def awaits() -> list[int]:
        return await asyncio.gather(*[(await flaky.asend(number)).aresult() for number in (1, 2)])

    assert asyncio.run(awaits()) == [1, 2]


def test_waiting_for_several_results_lasts_until_the_timeout_by_the_clock_of_the_test(
    app: App, inline: Inline, note: Any
) -> None:
    @app.task(name="flaky", queue="notes", retry=[60, 600])
    def flaky(attempts: int) -> int:
        if current().attempt < attempts:
            raise OSError("no")
        return current().attempt

    began = time.monotonic()
    assert gather([flaky.send(2), flaky.send(1), flaky.send(2)], timeout=100) == [2, 1, 2]
    with pytest.raises(ResultTimeout, match="1 of 2 tasks have not ended within 500 s"):
        gather([flaky.send(3), flaky.send(1)], timeout=500)
    assert time.monotonic() - began < 30


def test_what_was_not_sent_has_no_result_to_wait_for(app: App, inline: Inline, note: Any) -> None:
    with pytest.raises(InvalidArguments, match=r"^A Message has no result to wait for: give what send or send_many"):
        gather([note.message("text")])
    wrong: Any = note.send("text")
    with pytest.raises(InvalidArguments, match=r"^result takes the id of a message, not a Sent: a Sent has its own"):
        app.result(wrong)


def test_a_coroutine_of_a_task_that_blocks_for_results_gets_them(app: App, inline: Inline, note: Any) -> None:
    @app.task(name="slow", queue="notes")
    def slow(number: int) -> int:
        threading.Event().wait(0.05)
        return number

    @app.task(name="blocks", queue="notes", retry=None)
    async def blocks() -> list[int]:
        return [slow.send(1).result(), *gather([slow.send(2), slow.send(3)])]

    assert blocks.call() == [1, 2, 3]


def test_results_expire_by_the_clock_of_the_test(inline: Inline, note: Any) -> None:
    sent = note.send("a")
    assert gather([sent]) == [sent.result()]
    inline.advance(86_401)
    for wait in (lambda: sent.result(timeout=1), lambda: gather([sent], timeout=1)):
        with pytest.raises(ResultTimeout):
            wait()


def test_tasks_wait_for_results_of_others(app: App, inline: Inline, note: Any) -> None:
    @app.task(name="waits", queue="notes")
    def waits() -> str:
        return note.send("for this").result()  # type: ignore[no-any-return]

    @app.task(name="awaits", queue="notes")
    async def awaits() -> str:
        sent = await note.asend("for that")
        return await sent.aresult()  # type: ignore[no-any-return]

    assert waits.call() == "for this"
    assert awaits.call() == "for that"


def test_a_result_expires_by_the_clock_of_the_test(app: App, inline: Inline, note: Any) -> None:
    sent = note.send("text")
    inline.advance(timedelta(hours=23))
    assert sent.result() == "text"
    inline.advance(timedelta(hours=2))
    with pytest.raises(ResultTimeout):
        sent.result()


def test_an_app_without_a_store_has_none_inline_either() -> None:
    app = App("amqp://127.0.0.1:1/")

    @app.task(name="nothing", queue="notes")
    def nothing() -> None: ...

    with running_inline(app), pytest.raises(ConfigError, match="stores no results"):
        nothing.send().result()


def test_coroutines_run_in_one_loop_with_the_lifespan_and_its_tasks(tmp_path: Path) -> None:
    loops: list[Any] = []
    beats = threading.Event()

    async def beat() -> None:
        while True:
            beats.set()
            await asyncio.sleep(0.001)

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        loops.append(asyncio.get_running_loop())
        async with asyncio.TaskGroup() as group:
            beating = group.create_task(beat())
            yield
            beating.cancel()
        loops.append("left")

    app = App("amqp://127.0.0.1:1/", lifespan=lifespan)

    @app.task(name="where", queue="notes")
    async def where() -> None:
        loops.append(asyncio.get_running_loop())

    with running_inline(app):
        where.send()
        where.call()
        beats.clear()
        assert beats.wait(5)
    assert loops[0] is loops[1] is loops[2]
    assert loops[3:] == ["left"]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("inline")]


def test_a_test_that_is_a_coroutine_sends_and_calls_tasks_of_both_kinds(app: App, inline: Inline, note: Any) -> None:
    @app.task(name="runs-a-loop", queue="notes")
    def runs_a_loop() -> int:
        return asyncio.run(asyncio.sleep(0, 7))

    @app.task(name="calls", queue="notes")
    async def calls(depth: int) -> int:
        await note.asend("from a task")
        return 0 if depth == 0 else 1 + await calls.acall(depth - 1)

    async def use() -> list[Any]:
        async with app:
            return [await runs_a_loop.acall(), *await asyncio.gather(calls.acall(3), note.acall("a"))]

    assert asyncio.run(use()) == [7, 3, "a"]
    assert len(inline.sent(note, text="from a task")) == 4


def test_a_full_queue_refuses_messages(app: App, note: Any) -> None:
    app.queue("notes", max_length=2)
    with running_inline(app, eager=False) as inline:
        note.send("one")
        note.send("two")
        with pytest.raises(QueueFull):
            note.send("three")
        inline.run()
        note.send("three")


def test_a_task_that_no_worker_knows_waits_and_is_dead_after_a_day(app: App, inline: Inline, note: Any) -> None:
    app.send(replace(note.message("text"), task="renamed"))
    assert [one.task for one in inline.delayed()] == ["renamed"]
    inline.advance(timedelta(days=3))
    assert [letter.reason for letter in inline.dead()] == ["unknown-task"]


def test_time_limits_hold_in_real_time(app: App, inline: Inline) -> None:
    @app.task(name="endless", queue="notes", retry=None, time_limit=0.05)
    def endless() -> None:
        while True:
            threading.Event().wait(0.001)

    with pytest.raises(TaskFailed) as failed:
        endless.call()
    assert failed.value.reason == "timeout"
    assert TimeLimitExceeded.__name__ in failed.value.error_type


def test_a_cancelled_message_does_not_run(app: App, inline: Inline, note: Any, seen: list[Any]) -> None:
    sent = note.options(delay=timedelta(days=2)).send("text")
    sent.cancel()
    inline.advance(timedelta(days=3))
    assert seen == []
    assert inline.dead() == []
    assert inline.sent() != []


def test_hooks_of_both_kinds_are_called_before_send_returns(app: App, inline: Inline, note: Task[..., str]) -> None:
    called = []

    @app.on_success
    def plain(run: Run, value: Any) -> None:
        called.append((run.task, value))

    @note.on_success
    async def asynchronous(run: Run, value: Any) -> None:
        called.append(("async", value))
        await note.asend("sent by a hook") if value == "text" else None

    note.send("text")
    assert called == [("async", "text"), ("note", "text"), ("async", "sent by a hook"), ("note", "sent by a hook")]


def test_a_schedule_sends_its_message_at_its_next_time(app: App, inline: Inline, note: Any, seen: list[Any]) -> None:
    nightly = note.schedule("nightly", cron="30 2 * * *")("good night")
    inline.tick("nightly")
    inline.tick(nightly)
    assert seen == ["good night"] * 2
    assert (inline.now.hour, inline.now.minute) == (2, 30)
    with pytest.raises(ConfigError, match=r"no schedule 'nigtly' \(did you mean nightly"):
        inline.tick("nigtly")


def test_log_lines_of_tasks_have_their_task(
    app: App, inline: Inline, note: Any, caplog: pytest.LogCaptureFixture
) -> None:
    @app.task(name="logs", queue="notes", retry=None)
    def logs() -> None:
        logging.getLogger("shop").warning("inside %s", current().task)
        raise OSError("no")

    logs.send()
    assert "inside logs" in caplog.text
    assert "task_dead" in caplog.text


def test_what_needs_a_broker_is_refused(app: App, inline: Inline) -> None:
    app.check()
    for use in (lambda: app.dead, lambda: app.pending, lambda: app.queues):
        with pytest.raises(ConfigError, match=r"runs inline, without a broker\. Use the fixture amqp_app"):
            use()
    with pytest.raises(ConfigError, match="runs inline already"), running_inline(app):
        pass
    app.check()


def test_the_app_is_as_it_was_afterwards(app: App, note: Any) -> None:
    before, producer, threads = vars(app).copy(), app.producer, threading.active_count()
    with running_inline(app):
        note.send("text")
        app.close()
        note.send("text")
    after = vars(app).copy()
    # The origin of the task's results is made with the first message, wherever that goes.
    for values in (before, after):
        values.pop("_origins")
    assert after == before
    assert app.producer is producer
    assert threading.active_count() == threads


def test_settings_of_the_app_hold(note: Any) -> None:
    app = App("amqp://127.0.0.1:1/", settings=Settings(max_body=10, app_id="shop"))

    @app.task(name="large", queue="notes")
    def large(text: str) -> None: ...

    with running_inline(app), pytest.raises(InvalidArguments, match="MAX_BODY"):
        large.send("x" * 20)


def test_a_message_that_another_thread_runs_is_waited_for(app: App) -> None:
    taken, release = threading.Event(), threading.Event()

    @app.task(name="slow", queue="notes")
    def slow() -> str:
        taken.set()
        assert release.wait(10)
        return "done"

    with running_engine(app, eager=False) as engine, ThreadPoolExecutor(2) as threads:
        sent = slow.send()
        runs = threads.submit(engine.worker.run_ready)
        assert taken.wait(10)
        waits = threads.submit(sent.result, timeout=30)
        with pytest.raises(FutureTimeout):
            waits.result(0.02)
        release.set()
        assert (waits.result(10), runs.result(10)) == ("done", 1)


def test_threads_that_send_and_call_at_once_get_what_they_asked_for(app: App, inline: Inline) -> None:
    seen: set[int] = set()

    @app.task(name="half", queue="numbers")
    async def half(number: int) -> float:
        return number / 2

    @app.task(name="quarter", queue="numbers")
    async def quarter(number: int) -> float:
        first = await half.acall(number)
        return await half.acall(int(first))

    @app.task(name="mark", queue="numbers")
    def mark(number: int) -> None:
        seen.add(number)

    def use(number: int) -> bool:
        mark.send(number)
        return number in seen and quarter.call(4 * number) == number

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(use, range(40)))
