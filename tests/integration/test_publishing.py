"""`send` on a real broker: what it promises when it returns, and the message that others see."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from amqpworker import App, InvalidArguments, Unroutable
from tests.integration.tasks import QUEUE, echo_of
from tests.proxy import Proxy
from tests.support import Broker, milliseconds, wait_until


def test_a_message_is_in_its_queue_when_send_returns(app: App, vhost: Broker) -> None:
    sent = echo_of(app).send("hello")
    message = vhost.get(QUEUE)
    assert message is not None
    assert message.properties.message_id == sent.id
    assert json.loads(message.body) == {"text": "hello"}


def test_a_message_has_the_form_of_the_wire_contract(make_app: Any, vhost: Broker) -> None:
    app = make_app(app_id="shop")
    before = int(time.time() * 1000)
    echo_of(app).options(headers={"tenant": "acme"}).send("hällo")
    after = int(time.time() * 1000)

    message = vhost.get(QUEUE)
    assert message is not None
    assert (message.exchange, message.routing_key) == ("amqpworker.tasks", QUEUE)
    assert message.body == '{"text":"hällo"}'.encode()
    properties = message.properties
    assert properties.type == "test.echo"
    assert properties.content_type == "application/json"
    assert properties.delivery_mode == 2
    assert properties.app_id == "shop"
    assert before // 1000 <= properties.timestamp <= after // 1000
    for absent in ("content_encoding", "priority", "correlation_id", "reply_to", "expiration", "user_id", "cluster_id"):
        assert getattr(properties, absent) is None, absent
    assert set(message.headers) - {"x-delivery-count"} == {"tenant", "aw-first-sent"}  # the broker's own, from 3.10 on
    assert message.headers["tenant"] == "acme"
    assert before <= milliseconds(message.headers["aw-first-sent"]) <= after


def test_options_are_on_the_wire(app: App, vhost: Broker) -> None:
    before = int(time.time() * 1000)
    sent = echo_of(app).options(id="order-17", expires=60).send("x")
    after = int(time.time() * 1000)
    message = vhost.get(QUEUE)
    assert message is not None
    assert sent.id == message.properties.message_id == "order-17"
    assert before + 60_000 <= milliseconds(message.headers["aw-expires"]) <= after + 60_000
    assert message.properties.expiration is None


def test_a_message_that_is_sent_again_after_an_error_keeps_the_time_of_its_first_sending(
    app: App, vhost: Broker
) -> None:
    message = echo_of(app).options(queue="later").message("x")
    with pytest.raises(Unroutable):
        app.send(message)
    first = message.first_sent
    app.queue("later")
    wait_until(lambda: time.time() * 1000 > (first or 0) + 5, what="time has passed")
    app.send(message)
    arrived = vhost.get("later")
    assert arrived is not None
    assert milliseconds(arrived.headers["aw-first-sent"]) == first


def test_an_expiry_may_be_a_moment(app: App, vhost: Broker) -> None:
    moment = datetime.now(UTC) + timedelta(hours=1)
    echo_of(app).options(expires=moment).send("x")
    message = vhost.get(QUEUE)
    assert message is not None
    assert message.headers["aw-expires"] == moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def test_every_header_that_amqp_can_carry_arrives(app: App, vhost: Broker) -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    headers: dict[str, Any] = {
        "text": "ü" * 1000,
        "small": -5,
        "large": 2**62,
        "yes": True,
        "nothing": None,
        "table": {"list": [1, "two", None]},
        "list": [{"deep": [True]}],
        "ümlaut": "value",
        "moment": moment,
        "raw": b"\xff\x00",
    }
    echo_of(app).options(headers=headers).send("x")
    message = vhost.get(QUEUE)
    assert message is not None
    assert {name: value for name, value in message.headers.items() if name in headers} == headers


def test_float_headers_and_tuples_arrive(app: App, vhost: Broker) -> None:
    echo_of(app).options(headers={"ratio": 1.5, "pair": ("a", "b")}).send("x")
    headers = vhost.management.get(vhost.vhost, QUEUE)[0]["properties"]["headers"]
    assert (headers["ratio"], headers["pair"]) == (1.5, ["a", "b"])


def test_a_body_of_several_frames_arrives_whole(app: App, vhost: Broker) -> None:
    text = "".join(chr(0x4E00 + number % 5000) for number in range(300_000))
    echo_of(app).send(text)
    message = vhost.get(QUEUE)
    assert message is not None
    assert json.loads(message.body) == {"text": text}


def test_a_message_is_made_now_and_sent_later_with_its_own_id(app: App, vhost: Broker) -> None:
    message = echo_of(app).message("later")
    sent = app.send(message)
    assert sent.id == message.id
    found = vhost.get(QUEUE)
    assert found is not None
    assert found.properties.message_id == message.id


def test_many_threads_may_send_at_once(app: App, vhost: Broker) -> None:
    echo = echo_of(app)
    start = threading.Barrier(32)

    def run(number: int) -> list[str]:
        start.wait()
        return [echo.send(f"{number}-{count}").id for count in range(25)]

    with ThreadPoolExecutor(32) as pool:
        ids = [one for part in pool.map(run, range(32)) for one in part]
    assert len(set(ids)) == 800
    assert vhost.count(QUEUE) == 800


def test_a_timeout_longer_than_any_clock_waits_as_long_as_it_takes(make_app: Any, vhost: Broker) -> None:
    for seconds in (1e10, 1e300):
        app = make_app(send_timeout=seconds)
        echo_of(app).send("x")
        app.close()
    assert vhost.count(QUEUE) == 2


def test_one_connection_serves_all_threads_and_tasks_of_an_app(make_app: Any, vhost: Broker) -> None:
    with Proxy(vhost.url) as proxy:
        app = make_app(proxy.url)
        echo, other = echo_of(app), app.remote(name="test.other", queue="other")(lambda: None)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(echo.send, "abcdefgh"))
        other.send()
        assert proxy.accepted == 1


def test_an_app_opens_no_connection_and_no_thread_before_it_sends(vhost: Broker) -> None:
    before = threading.active_count()
    task = echo_of(App(vhost.url))
    task.message("x")
    assert threading.active_count() == before


def test_a_closed_app_connects_again_when_it_is_used(app: App, vhost: Broker) -> None:
    echo = echo_of(app)
    with app:
        echo.send("one")
    app.close()
    echo.send("two")
    assert vhost.count(QUEUE) == 2


def test_close_leaves_no_thread_and_no_connection(app: App, vhost: Broker) -> None:
    before = threading.active_count()
    echo_of(app).send("x")
    assert threading.active_count() == before + 1
    app.close()
    assert threading.active_count() == before


def test_a_daemon_thread_may_send(app: App, vhost: Broker) -> None:
    thread = threading.Thread(target=lambda: echo_of(app).send("x"), daemon=True)
    thread.start()
    thread.join(10)
    assert vhost.count(QUEUE) == 1


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ({"bad": object()}, "'bad'"),
        ({"bad": {"deep": [object()]}}, "'bad'"),
        ({"bad": 2**64}, "'bad'"),
        ({"bad": float("nan")}, "'bad'"),
        ({"bad": datetime(2026, 1, 1)}, "'bad'"),  # noqa: DTZ001 - naive is the point
        ({"n" * 256: "x"}, "256"),
        ({"large": "x" * 70 * 1024}, "16384"),
        ({f"h{number}": "x" * 100 for number in range(1000)}, "16384"),
    ],
)
def test_headers_that_cannot_be_carried_are_refused_when_they_are_given(headers: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidArguments, match=told):
        echo_of(App("amqp://127.0.0.1:1/")).options(headers=headers)
