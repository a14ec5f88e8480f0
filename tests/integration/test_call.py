"""`call`: the typed answer of a worker, or one error in time, and nothing left behind."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from amqpworker import (
    App,
    CallTimeout,
)
from tests.integration.tasks import QUEUE, echo_of
from tests.proxy import Proxy
from tests.support import Broker, milliseconds, wait_until
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
    monkeypatch.setattr(app.producer, "now", lambda: time.time() - 4.0)
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
