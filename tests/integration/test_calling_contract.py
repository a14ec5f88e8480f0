"""What calling promises, in threads, in event loops, and in those that have entered the app: the value, or one error in time."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pika
import pytest

from amqpworker import (
    App,
    CallTimeout,
    ConfigError,
    InvalidArguments,
    InvalidResult,
    MalformedReply,
    Message,
    Reject,
    ResultTimeout,
    Sent,
    TaskFailed,
    Unconfirmed,
    Unroutable,
    current,
)
from amqpworker.testing.processes import free_ports
from tests.clients import PATIENCE, Client, failure_of, result_of
from tests.integration.tasks import QUEUE, another_of, echo_of
from tests.proxy import Proxy
from tests.support import Broker, RawMessage, raw_channel, wait_until
from tests.workers import running

MakeApp = Callable[..., App]
MakeClient = Callable[[App], Client]

LOST = "The connection was lost while waiting for a reply: the task may have run."


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait longer for the broker's answer about consumers: a machine with much to do takes its time."""
    for module in ("producer", "async_producer"):
        monkeypatch.setattr(f"amqpworker.client.{module}.COUNT_TIMEOUT", 10.0)


def late(message: Message[Any], seconds: str, *, no_consumers: bool = False) -> tuple[type, str, None]:
    """Return the error of a call that timed out."""
    end = (
        f": queue '{message.queue}' has no consumers: no worker runs its tasks, it is paused, or its workers cannot store results"
        if no_consumers
        else ""
    )
    return CallTimeout, f"Task '{message.task}' did not reply within {seconds} s (id {message.id}){end}.", None


@pytest.fixture
def server(make_app: MakeApp) -> Iterator[App]:
    """A worker with a few tasks, on a connection of its own."""
    app = make_app()

    @app.task(name="test.echo", queue=QUEUE, retry=None)
    def echo(text: str) -> str:
        return text

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


def remote(client: Client, name: str, function: Callable[..., Any]) -> Any:
    return client.app.remote(name=name, queue=QUEUE)(function)


def slow_of(client: Client) -> Any:
    def slow(seconds: float) -> str: ...

    return remote(client, "test.slow", slow)


# ---- the value, or the failure of the task --------------------------------------------------------------------------


def test_a_call_returns_the_value_of_the_task_however_many_are_made_at_once(server: App, client: Client) -> None:
    echo = echo_of(client.app)
    calls = [client.call(echo.message(f"hällo {number}")) for number in range(300)]
    assert [result_of(one) for one in calls] == [f"hällo {number}" for number in range(300)]
    assert result_of(client.begin(echo.call, echo.acall, "by the task")) == "by the task"
    assert client.waiting_calls() == 0


def test_calls_do_not_wait_for_each_other(server: App, client: Client) -> None:
    long = client.call(slow_of(client).message(1.0))
    assert result_of(client.call(echo_of(client.app).message("quick"))) == "quick"
    assert not long.done()
    assert result_of(long) == "late"


def test_what_the_task_ends_with_is_raised(server: App, client: Client) -> None:
    def fail(text: str) -> str: ...
    def flaky() -> int: ...
    def wrong(number: int) -> str: ...

    error = client.call(remote(client, "test.fail", fail).message("no such row")).exception(PATIENCE)
    assert isinstance(error, TaskFailed)
    assert (str(error), error.reason) == ("The task ended as 'failed': LookupError: no such row", "failed")
    assert (error.error_type, error.text, error.__cause__) == ("LookupError", "no such row", None)
    assert "raise LookupError(text)" in error.traceback

    failed = failure_of(client.call(remote(client, "test.reject", lambda: None).message()))
    assert failed == (TaskFailed, "The task ended as 'rejected': amqpworker.errors.Reject: not today", None)
    assert result_of(client.call(remote(client, "test.flaky", flaky).message())) == 2
    kind, text, _ = failure_of(client.call(remote(client, "test.unknown", lambda: None).message()))
    assert kind is TaskFailed
    assert text.startswith("The task ended as 'unknown-task': no task 'test.unknown' is registered in this worker: ")
    kind, text, _ = failure_of(client.call(remote(client, "test.echo", wrong).message(5)))
    assert kind is TaskFailed
    assert text.startswith(
        "The task ended as 'malformed': InvalidArguments: Task 'test.echo': parameter 'text' is missing"
    )


# ---- no reply -------------------------------------------------------------------------------------------------------


def test_a_call_that_no_worker_serves_ends_in_time_with_the_reason(client: Client, vhost: Broker) -> None:
    make_first_call(client, vhost)
    echo = echo_of(client.app)
    result_of(client.send(echo.message("makes the queue")))
    messages = [echo.message("x") for _ in range(20)]
    for message, call in zip(messages, [client.call(message, 0.5) for message in messages], strict=True):
        assert failure_of(call) == late(message, "0.5", no_consumers=True)
    assert client.waiting_calls() == 0


def test_a_call_that_is_not_replied_to_in_time_does_not_blame_a_missing_consumer(server: App, client: Client) -> None:
    message = slow_of(client).message(1.0)
    assert failure_of(client.call(message, 0.5)) == late(message, "0.5")
    assert client.waiting_calls() == 0
    # The reply that arrives later is dropped.
    echo = echo_of(client.app)
    for _ in range(20):
        assert result_of(client.call(echo.message("mine"))) == "mine"


def test_a_call_that_would_start_after_its_timeout_is_not_run(make_app: MakeApp, client: Client, vhost: Broker) -> None:
    make_first_call(client, vhost)
    message = replace(client.app.remotes["test.another"].message(), queue=client.app.queue(QUEUE))
    assert failure_of(client.call(message, 0.5)) == late(message, "0.5", no_consumers=True)
    asked = vhost.wait_for_message(QUEUE)
    asked.properties.headers = {**asked.headers, "aw-expires": "2026-01-01T00:00:00.000Z"}
    vhost.publish("amqpworker.tasks", QUEUE, asked.body, asked.properties)
    worker = make_app()
    ran: list[str] = []
    worker.task(name="test.another", queue=QUEUE, retry=None)(lambda: ran.append("another"))
    worker.task(name="test.echo", queue=QUEUE, retry=None)(lambda text: ran.append(text) or text)
    with running(worker, threads=1):
        result_of(client.call(echo_of(client.app).message("after it"), 10))
    assert ran == ["after it"]


def reply(vhost: Broker, asked: RawMessage, body: bytes, correlation_id: str | None) -> None:
    with raw_channel(vhost.url) as channel:
        properties = pika.BasicProperties(correlation_id=correlation_id)
        channel.basic_publish("", asked.properties.reply_to, body, properties)


def make_first_call(client: Client, vhost: Broker) -> None:
    """Have the connection and the channel of calls opened, so that a later call may have a short timeout."""
    calling = client.call(another_of(client.app, "first").message(), 20)
    asked = vhost.wait_for_message("first")
    reply(vhost, asked, b'{"status": "done", "value": null}', asked.properties.correlation_id)
    result_of(calling)


def test_calls_with_one_id_get_their_own_replies(client: Client, vhost: Broker) -> None:
    make_first_call(client, vhost)
    echo = echo_of(client.app)
    first_message = echo.options(id="order-17").message("x")
    assert failure_of(client.call(first_message, 0.5))[0] is CallTimeout
    first = vhost.wait_for_message(QUEUE)
    calls = [client.call(echo.options(id="order-17").message(text), 20) for text in ("a", "b")]
    later = [vhost.wait_for_message(QUEUE) for _ in calls]
    assert {one.properties.message_id for one in (first, *later)} == {"order-17"}
    reply(vhost, first, b'{"status": "done", "value": "late"}', first.properties.correlation_id)
    for one in later:
        for forged in ("nobody", "", None):
            reply(vhost, one, b'{"status": "done", "value": "forged"}', forged)
        body = json.dumps({"status": "done", "value": f"for {json.loads(one.body)['text']}"}).encode()
        reply(vhost, one, body, one.properties.correlation_id)
    assert [result_of(one) for one in calls] == ["for a", "for b"]
    assert client.waiting_calls() == 0


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", MalformedReply),
        (b"nonsense", MalformedReply),
        (b"[]", MalformedReply),
        (b'{"status": "odd"}', MalformedReply),
        (b'{"status": "done", "value": 5}', InvalidResult),
    ],
)
def test_a_reply_that_cannot_be_read_is_an_error_of_ours(
    client: Client, vhost: Broker, body: bytes, kind: type
) -> None:
    calling = client.call(echo_of(client.app).message("x"))
    asked = vhost.wait_for_message(QUEUE)
    reply(vhost, asked, body, asked.properties.correlation_id)
    assert failure_of(calling)[0] is kind
    assert client.waiting_calls() == 0


# ---- the connection -------------------------------------------------------------------------------------------------


def test_a_lost_connection_ends_the_calls_that_wait_and_later_ones_are_replied_to(
    make_app: MakeApp, make_client: MakeClient, vhost: Broker
) -> None:
    with Proxy(vhost.url) as proxy:
        client = make_client(make_app(proxy.url))
        echo = echo_of(client.app)
        messages = [echo.message("x") for _ in range(10)]
        calls = [client.call(message, 30) for message in messages]
        wait_until(lambda: client.waiting_calls() == 10 and client.publisher().calls.is_idle, what="all are confirmed")
        proxy.reset()
        for message, call in zip(messages, calls, strict=True):
            assert failure_of(call) == (Unconfirmed, LOST, message)
        assert client.waiting_calls() == 0
        worker = make_app()
        worker.task(name="test.echo", queue=QUEUE, retry=None)(lambda text: text)
        with running(worker, threads=1):
            wait_until(lambda: client.call(echo.message("x"), 5).exception(PATIENCE) is None, 10)


def test_a_call_made_before_the_broker_listens_is_replied_to(
    make_app: MakeApp, make_client: MakeClient, server: App
) -> None:
    port = free_ports(1)[0]
    client = make_client(make_app(f"amqp://guest:guest@127.0.0.1:{port}/{server.url.rpartition('/')[2]}"))
    calling = client.call(echo_of(client.app).message("patient"), 15)
    wait_until(lambda: client.publisher().session.problem is not None, what="a first attempt has failed")
    with Proxy(server.url, port):
        assert result_of(calling) == "patient"


def test_a_call_to_a_queue_that_does_not_exist_is_not_routed(client: Client) -> None:
    echo = echo_of(client.app)
    result_of(client.send(echo.message("makes the exchanges")))
    message = echo.options(queue="nowhere").message("x")
    kind, text, about = failure_of(client.call(message))
    assert (kind, about) == (Unroutable, message)
    assert "'nowhere' (NO_ROUTE)" in text
    assert client.waiting_calls() == 0


def test_closing_the_app_ends_its_calls(client: Client) -> None:
    message = echo_of(client.app).message("x")
    calling = client.call(message, 30)
    publisher = client.publisher()
    wait_until(lambda: len(publisher.session.calls) == 1 and publisher.calls.is_idle, what="it is confirmed")
    client.app.close()
    assert failure_of(calling) == (Unconfirmed, LOST, message)


# ---- refused before anything leaves ---------------------------------------------------------------------------------


def test_options_that_a_call_cannot_have_are_refused(client: Client) -> None:
    message = echo_of(client.app).options(delay=5).message("x")
    text = "call() does not accept a message with delay: a caller waits for its reply."
    assert failure_of(client.call(message)) == (InvalidArguments, text, None)
    soon: Any = "soon"
    text = "timeout='soon': a duration is a number of seconds or a timedelta."
    assert failure_of(client.call(another_of(client.app).message(), soon)) == (InvalidArguments, text, None)


# ---- stored results -------------------------------------------------------------------------------------------------


def test_results_are_stored_and_read_with_their_errors(
    make_app: MakeApp, make_client: MakeClient, tmp_path: Path
) -> None:
    client = make_client(make_app(results=f"sqlite:///{tmp_path / 'results.db'}"))
    app = client.app

    @app.task(name="test.double", queue=QUEUE, retry=None)
    def double(number: int) -> int:
        if number < 0:
            raise LookupError("no such row")
        return 2 * number

    @app.task(name="test.silent", queue=QUEUE, retry=None, result=False)
    def silent() -> None: ...

    good, bad, unseen = [
        result_of(client.send(one)) for one in (double.message(4), double.message(-4), silent.message())
    ]
    assert result_of(client.status(good)).state == "pending"
    text = f"No result of task 'test.double' within 0.1 s (id {good.id})."
    assert failure_of(client.result(good, 0.1)) == (ResultTimeout, text, None)
    with running(app, threads=1):
        assert (result_of(client.result(good)), result_of(client.status(good)).state) == (8, "done")
        failed = (TaskFailed, "The task ended as 'failed': LookupError: no such row", None)
        assert failure_of(client.result(bad)) == failed
        assert result_of(client.status(bad)).state == "failed"
    text = "This task is declared with result=False, so its results are not stored: use call, or remove result=False."
    for one in (client.result(unseen), client.status(unseen)):
        assert failure_of(one) == (ConfigError, text, None)


def test_an_app_without_a_store_has_no_results(client: Client) -> None:
    sent: Sent[Any] = result_of(client.send(echo_of(client.app).message("x")))
    for one in (client.result(sent), client.status(sent)):
        kind, text, _ = failure_of(one)
        assert kind is ConfigError
        assert text.startswith("This app stores no results: ")
