"""`call`: the typed answer of a worker, or one error in time, and nothing left behind."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pika
import pytest

from amqpworker import (
    AccessRefused,
    AmqpWorkerError,
    App,
    CallTimeout,
    InvalidArguments,
    NotConnected,
    Reject,
    TaskFailed,
    Unconfirmed,
    Unroutable,
    current,
)
from amqpworker.testing.processes import free_ports
from tests.integration.tasks import QUEUE, echo_of
from tests.proxy import Proxy
from tests.support import Broker, milliseconds, raw_channel, wait_until
from tests.workers import running

MakeApp = Callable[..., App]


def pending(app: App) -> int:
    return len(app.producer._generation.calls)


@pytest.fixture
def server(make_app: MakeApp) -> Iterator[App]:
    """A worker with a few tasks, on a connection of its own."""
    app = make_app()

    @app.task(name="test.echo", queue=QUEUE, retry=None)
    def echo(text: str) -> str:
        return text

    @app.task(name="test.table", queue=QUEUE, retry=None)
    def table(rows: int) -> dict[str, list[int]]:
        return {"rows": list(range(rows))}

    @app.task(name="test.slow", queue=QUEUE, retry=None)
    def slow(seconds: float) -> str:
        threading.Event().wait(seconds)
        return "late"

    @app.task(name="test.fail", queue=QUEUE, retry=None)
    def fail(text: str) -> str:
        raise LookupError(text)

    @app.task(name="test.reject", queue=QUEUE, retry=None)
    def reject() -> None:
        raise Reject("not today")

    @app.task(name="test.flaky", queue=QUEUE, retry=[0.0])
    def flaky() -> int:
        if current().attempt == 1:
            raise OSError("once")
        return current().attempt

    with running(app, threads=8):
        yield app


def remote(app: App, name: str, function: Callable[..., Any]) -> Any:
    return app.remote(name=name, queue=QUEUE)(function)


def test_the_answer_is_typed_by_the_return_hint(app: App, server: App) -> None:
    def table(rows: int) -> dict[str, tuple[int, ...]]: ...

    assert remote(app, "test.table", table).call(3) == {"rows": (0, 1, 2)}
    assert echo_of(app).call("hällo") == "hällo"


def test_many_threads_call_at_once_over_one_connection(make_app: MakeApp, server: App) -> None:
    with Proxy(server.url) as proxy:
        app = make_app(proxy.url)
        call_from_many_threads(app)
        assert proxy.accepted == 1


def call_from_many_threads(app: App) -> None:
    echo = echo_of(app)

    def run(number: int) -> bool:
        return all(echo.call(f"{number}-{count}") == f"{number}-{count}" for count in range(10))

    with ThreadPoolExecutor(64) as pool:
        assert all(pool.map(run, range(64)))
    assert pending(app) == 0


def test_calls_do_not_wait_for_each_other(app: App, server: App) -> None:
    def slow(seconds: float) -> str: ...

    task = remote(app, "test.slow", slow)
    with ThreadPoolExecutor(1) as pool:
        long = pool.submit(task.call, 1.0)
        wait_until(lambda: pending(app) == 1)
        assert echo_of(app).call("quick") == "quick"
        assert not long.done()
        assert long.result(5) == "late"


def test_a_failure_comes_back_as_text_with_the_remote_traceback(app: App, server: App) -> None:
    def fail(text: str) -> str: ...

    with pytest.raises(TaskFailed) as caught:
        remote(app, "test.fail", fail).call("no such row")
    error = caught.value
    assert (error.reason, error.error_type) == ("failed", "LookupError")
    assert "no such row" in error.text
    assert "raise LookupError(text)" in error.traceback
    assert error.__cause__ is None


def test_a_rejection_comes_back_with_its_reason(app: App, server: App) -> None:
    with pytest.raises(TaskFailed, match="not today") as caught:
        remote(app, "test.reject", lambda: None).call()
    assert caught.value.reason == "rejected"


def test_a_task_that_is_run_again_answers_once_with_its_result(app: App, server: App) -> None:
    def flaky() -> int: ...

    assert remote(app, "test.flaky", flaky).call() == 2


def test_an_unknown_task_is_answered_at_once(app: App, server: App) -> None:
    begin = time.monotonic()
    with pytest.raises(TaskFailed, match=r"test\.unknown") as caught:
        remote(app, "test.unknown", lambda: None).call()
    assert caught.value.reason == "unknown-task"
    assert time.monotonic() - begin < 2.0


def test_wrong_arguments_of_an_older_caller_are_answered_at_once(app: App, server: App) -> None:
    def echo(wrong: int) -> str: ...

    with pytest.raises(TaskFailed) as caught:
        remote(app, "test.echo", echo).call(5)
    assert "text" in caught.value.text


def test_wrong_arguments_are_refused_here(app: App, vhost: Broker) -> None:
    with pytest.raises(InvalidArguments):
        echo_of(app).call(5)  # type: ignore[arg-type]
    assert vhost.queues() == []


def test_a_call_has_the_form_of_the_wire_contract(app: App, vhost: Broker) -> None:
    before = int(time.time() * 1000)
    with pytest.raises(CallTimeout):
        echo_of(app).options(timeout=0.4, id="call-1", headers={"tenant": "acme"}).call("x")
    message = vhost.get(QUEUE)
    assert message is not None
    properties = message.properties
    assert properties.message_id == "call-1"
    assert properties.correlation_id not in (None, "", "call-1"), "it is the call's, not the id's"
    assert properties.reply_to.startswith("amq.rabbitmq.reply-to.")
    assert before + 400 <= milliseconds(message.headers["aw-expires"]) <= before + 400 + 2000
    assert message.headers["tenant"] == "acme"
    assert properties.expiration is None
    assert properties.delivery_mode == 2


def test_a_worker_whose_clock_is_ahead_of_the_timeout_of_a_call_runs_it(
    app: App, server: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = SimpleNamespace(time=lambda: time.time() + 4.0, monotonic=time.monotonic)
    monkeypatch.setattr("amqpworker.worker.executor.time", ahead)
    assert echo_of(app).options(timeout=3).call("x") == "x"


def test_a_timeout_is_bounded_and_leaves_nothing_behind(app: App) -> None:
    echo = echo_of(app)
    with pytest.raises(CallTimeout):
        echo.options(timeout=0.2).call("declares")
    begin = time.monotonic()
    with pytest.raises(CallTimeout, match=r"'test\.echo' did not reply within 0\.3 s"):
        echo.options(timeout=0.3).call("x")
    assert 0.3 <= time.monotonic() - begin < 0.6
    assert pending(app) == 0


NO_CONSUMERS = f"queue '{QUEUE}' has no consumers"


def test_a_call_without_a_consumer_fails_with_that_reason_however_many_are_made_at_once(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amqpworker.client.producer.COUNT_TIMEOUT", 10.0)
    echo = echo_of(app)

    def called(n: int) -> str:
        with pytest.raises(CallTimeout) as caught:
            echo.options(timeout=2).call(str(n))
        return str(caught.value)

    with ThreadPoolExecutor(40) as pool:
        texts = list(pool.map(called, range(40)))
    assert [text for text in texts if NO_CONSUMERS not in text] == []
    assert "did not reply within 2 s" in texts[0]
    session = app.producer.publisher.session
    assert session.connection is not None
    wait_until(lambda: len(session.connection._channels) <= 4, 5, "the channel that asked is closed")


def test_a_call_that_its_worker_does_not_answer_in_time_does_not_blame_a_missing_consumer(
    app: App, server: App
) -> None:
    def slow(seconds: float) -> str: ...

    with pytest.raises(CallTimeout) as caught:
        remote(app, "test.slow", slow).options(timeout=1.5).call(3)
    assert NO_CONSUMERS not in str(caught.value)


def test_a_late_answer_is_dropped_and_the_next_call_gets_its_own(
    app: App, server: App, caplog: pytest.LogCaptureFixture
) -> None:
    def slow(seconds: float) -> str: ...

    with pytest.raises(CallTimeout):
        remote(app, "test.slow", slow).options(timeout=0.3).call(0.6)
    echo = echo_of(app)
    end = time.monotonic() + 0.8
    while time.monotonic() < end:
        assert echo.call("mine") == "mine"
    assert pending(app) == 0
    assert "ERROR" not in caplog.text


def test_a_call_whose_id_was_used_before_gets_its_own_answer(app: App, vhost: Broker) -> None:
    echo = echo_of(app)
    with pytest.raises(CallTimeout):
        echo.options(timeout=0.3, id="order-17").call("x")
    first = vhost.wait_for_message(QUEUE)
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(echo.options(timeout=10, id="order-17").call, text) for text in ("a", "b")]
        later = [vhost.wait_for_message(QUEUE) for _ in calls]
        assert {one.properties.message_id for one in (first, *later)} == {"order-17"}
        value = b'{"status": "done", "value": "late"}'
        answer(vhost, first.properties.reply_to, first.properties.correlation_id, value)
        for one in later:
            text = json.loads(one.body)["text"]
            body = json.dumps({"status": "done", "value": f"for {text}"}).encode()
            answer(vhost, one.properties.reply_to, one.properties.correlation_id, body)
        assert [one.result(10) for one in calls] == ["for a", "for b"]
    assert pending(app) == 0


def test_a_stranger_s_answer_is_dropped(app: App, vhost: Broker) -> None:
    echo = echo_of(app)
    with ThreadPoolExecutor(1) as pool:
        calling = pool.submit(echo.options(timeout=5).call, "x")
        asked = vhost.wait_for_message(QUEUE)
        reply_to, correlation_id = asked.properties.reply_to, asked.properties.correlation_id
        for forged in ("nobody", "", None):
            answer(vhost, reply_to, forged, b'{"status": "done", "value": "forged"}')
        answer(vhost, reply_to, correlation_id, b'{"status": "done", "value": "right"}')
        assert calling.result(5) == "right"


def answer(vhost: Broker, reply_to: str, correlation_id: str | None, body: bytes) -> None:
    with raw_channel(vhost.url) as channel:
        channel.basic_publish("", reply_to, body, pika.BasicProperties(correlation_id=correlation_id))


@pytest.mark.parametrize("body", [b"", b"nonsense", b"[]", b'{"status": "odd"}', b'{"status": "done", "value": 5}'])
def test_an_answer_that_cannot_be_read_is_an_error_of_ours(app: App, vhost: Broker, body: bytes) -> None:
    echo = echo_of(app)
    with ThreadPoolExecutor(1) as pool:
        calling = pool.submit(echo.options(timeout=5).call, "x")
        asked = vhost.wait_for_message(QUEUE)
        answer(vhost, asked.properties.reply_to, asked.properties.correlation_id, body)
        with pytest.raises(AmqpWorkerError):
            calling.result(5)
    assert pending(app) == 0


def test_a_lost_connection_ends_the_calls_that_wait_at_once(make_app: MakeApp, vhost: Broker) -> None:
    with Proxy(vhost.url) as proxy:
        app = make_app(proxy.url)
        echo = echo_of(app)
        with ThreadPoolExecutor(10) as pool:
            calls = [pool.submit(echo.options(timeout=20).call, "x") for _ in range(10)]
            waiting = app.producer._generation.calls._pending
            wait_until(lambda: len(waiting) == 10 and all(one.requested_on for one in list(waiting.values())))
            # In the queue and confirmed are two things; what is not confirmed yet fails with another text.
            asked = app.producer._generation.calls._pending.values
            wait_until(lambda: all(one.requested_on for one in list(asked())), what="all questions are confirmed")
            begin = time.monotonic()
            proxy.reset()
            for one in calls:
                with pytest.raises(Unconfirmed, match="may have run") as caught:
                    one.result(5)
                assert caught.value.message is not None
            assert time.monotonic() - begin < 2.0
        assert pending(app) == 0


def test_a_call_waits_for_a_connection_and_for_its_answer(make_app: MakeApp, server: App) -> None:
    with Proxy(server.url) as proxy:
        app = make_app(proxy.url)
        echo = echo_of(app)
        assert echo.call("before") == "before"
        for _ in range(3):
            proxy.reset()
            wait_until(lambda: calls(echo), 5)
            assert echo.call("after") == "after"


def calls(task: Any) -> bool:
    try:
        task.call("x")
    except Unconfirmed:
        return False
    return True


def test_a_call_while_the_broker_is_unreachable_fails_in_time_with_that_reason(make_app: MakeApp) -> None:
    app = make_app(f"amqp://127.0.0.1:{free_ports(1)[0]}/")
    begin = time.monotonic()
    with pytest.raises(NotConnected, match="connection refused") as caught:
        echo_of(app).options(timeout=0.8).call("x")
    assert 0.7 < time.monotonic() - begin < 1.5
    assert caught.value.message is not None
    assert pending(app) == 0


def test_a_call_made_before_the_broker_listens_is_answered(make_app: MakeApp, server: App) -> None:
    port = free_ports(1)[0]
    app = make_app(f"amqp://guest:guest@127.0.0.1:{port}/{server.url.rpartition('/')[2]}")
    echo = echo_of(app)
    with ThreadPoolExecutor(1) as pool:
        calling = pool.submit(echo.options(timeout=10).call, "patient")
        wait_until(lambda: app.producer.publisher.session.problem is not None, what="a first attempt has failed")
        with Proxy(server.url, port) as _:
            assert calling.result(10) == "patient"


def test_a_call_to_a_queue_that_is_not_there_is_not_routed(app: App, vhost: Broker) -> None:
    echo = echo_of(app)
    echo.send("makes the exchanges")
    begin = time.monotonic()
    with pytest.raises(Unroutable):
        echo.options(queue="nowhere").call("x")
    assert time.monotonic() - begin < 2.0
    assert pending(app) == 0


def test_a_refused_login_ends_a_call_at_once(make_app: MakeApp, vhost: Broker) -> None:
    app = make_app(vhost.node.url(vhost.vhost, "guest", "wrong"))
    with pytest.raises(AccessRefused):
        echo_of(app).call("x")


def test_closing_the_app_ends_its_calls(app: App, vhost: Broker) -> None:
    with ThreadPoolExecutor(1) as pool:
        calling = pool.submit(echo_of(app).options(timeout=20).call, "x")
        vhost.wait_for_count(QUEUE, 1)
        begin = time.monotonic()
        app.close()
        with pytest.raises(Unconfirmed):
            calling.result(5)
        assert time.monotonic() - begin < 2.0
