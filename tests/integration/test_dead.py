"""Dead letters: with their evidence, whole, in their queue, whether a worker or the broker decided on them."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pika
import pytest

from amqpworker import App, TaskFailed
from tests.support import Broker, milliseconds, raw_channel, wait_until
from tests.workers import running

QUEUE = "work"
DEAD = "work.dead"
TASKS = "amqpworker.tasks"


def test_a_dead_letter_is_the_message_with_its_evidence(vhost: Broker, app: App) -> None:
    @app.task(name="fail", queue=QUEUE, retry=[0])
    def fail(n: int) -> None:
        raise ValueError(f"{n} is too much")

    with running(app, threads=1):
        before = time.time()
        sent = fail.options(headers={"tenant": "acme"}).send(7)
        letter = vhost.wait_for_message(DEAD)
    told = letter.properties
    assert letter.body == b'{"n":7}'
    assert (told.type, told.message_id, told.content_type, told.delivery_mode) == (
        "fail",
        sent.id,
        "application/json",
        2,
    )
    headers = letter.headers
    assert headers["tenant"] == "acme"
    assert headers["aw-dead-reason"] == "failed"
    assert headers["aw-error-type"] == "ValueError"
    assert headers["aw-error"] == "7 is too much"
    assert "in fail\n" in headers["aw-traceback"]
    assert "runner.py" not in headers["aw-traceback"], "the user's frames only"
    assert before * 1000 - 1 <= milliseconds(headers["aw-failed-at"]) <= time.time() * 1000
    assert headers["aw-worker"] == f"{socket.gethostname()}:{os.getpid()}"
    assert headers["aw-attempt"] == 2
    added_by_the_queue = {"x-delivery-count"}
    assert {name for name in headers if name.startswith(("x-", "aw-wait-"))} <= added_by_the_queue
    assert (letter.exchange, letter.routing_key) == ("amqpworker.dead", QUEUE)


def test_a_dead_letter_can_be_read_in_the_management_ui(vhost: Broker, make_app: Callable[..., App]) -> None:
    app = make_app()

    @app.task(name="fail", queue=QUEUE, retry=None)
    def fail(text: str) -> None:
        raise ValueError("ça ne va pas")

    with running(app, threads=1):
        fail.send("é")
        vhost.wait_for_count(DEAD, 1)
    shown = vhost.management.get(vhost.vhost, DEAD)[0]
    assert shown["payload"] == '{"text":"é"}'
    assert shown["properties"]["type"] == "fail"
    assert shown["properties"]["headers"]["aw-error"] == "ça ne va pas"
    assert vhost.count(DEAD) == 1, "peeking leaves it there"


def deep(levels: int) -> None:
    """Raise from under so many frames of different functions."""
    namespace: dict[str, Any] = {}
    exec("\n".join([f"def f{n}(): f{n + 1}()" for n in range(levels)] + [f"def f{levels}(): 1 / 0"]), namespace)
    namespace["f0"]()


def test_a_long_error_or_traceback_is_truncated_to_what_a_message_can_carry(
    vhost: Broker, make_app: Callable[..., App]
) -> None:
    app = make_app()

    @app.task(name="talk", queue=QUEUE, retry=None)
    def talk() -> None:
        raise ValueError("begin " + "é" * 1_000_000 + " end")

    @app.task(name="fall", queue=QUEUE, retry=None)
    def fall() -> None:
        deep(900)

    with running(app, threads=1):
        talk.send()
        text = vhost.wait_for_message(DEAD).headers
        fall.send()
        trace = vhost.wait_for_message(DEAD).headers
    assert text["aw-error"].startswith("begin é")
    assert text["aw-error"].endswith("é end")
    assert len(text["aw-error"].encode()) <= 4096
    assert len(trace["aw-traceback"].encode()) <= 32 * 1024
    assert trace["aw-traceback"].rstrip().endswith("ZeroDivisionError: division by zero")


def test_a_dead_letter_contains_no_password(vhost: Broker, make_app: Callable[..., App]) -> None:
    app = make_app()

    @app.task(name="leak", queue=QUEUE, retry=None)
    def leak() -> None:
        try:
            raise ConnectionError("no answer from postgres://app:hunter2@db/shop")
        except ConnectionError as error:
            raise RuntimeError("amqp://guest:s3cret@broker/ is away") from error

    with running(app, threads=1):
        leak.send()
        headers = vhost.wait_for_message(DEAD).headers
    assert "hunter2" not in str(headers)
    assert "s3cret" not in str(headers)
    assert headers["aw-error"] == "amqp://guest:***@broker/ is away"
    assert "postgres://app:***@db/shop" in headers["aw-traceback"]


def test_headers_that_fill_the_frame_do_not_keep_a_dead_letter_from_its_queue(
    vhost: Broker, make_app: Callable[..., App]
) -> None:
    """A foreign sender's: ours are bounded. First the traceback goes, then, at last, the sender's own."""
    app = make_app()

    @app.task(name="fail", queue=QUEUE, retry=None)
    def fail() -> None:
        deep(900)

    with running(app, threads=1):
        for number, size in enumerate((60_000, 110_000, 130_900)):
            headers = {"large": "x" * size, "n": number}
            told = pika.BasicProperties(type="fail", headers=headers, message_id=str(number), delivery_mode=2)
            assert vhost.publish(TASKS, QUEUE, b"{}", told)
        vhost.wait_for_count(DEAD, 3)
        letters = {one.properties.message_id: one.headers for one in (vhost.wait_for_message(DEAD) for _ in range(3))}
    assert all(one["aw-dead-reason"] == "failed" for one in letters.values())
    assert ["large" in letters[number] for number in "012"] == [True, True, False]
    assert ["aw-traceback" in letters[number] for number in "012"] == [True, False, False]
    assert vhost.count(QUEUE) == 0


def test_a_retry_that_has_no_room_is_a_dead_letter_instead(vhost: Broker, make_app: Callable[..., App]) -> None:
    app = make_app()
    ran: list[int] = []

    @app.task(name="fail", queue=QUEUE, retry=[0.125] * 5)
    def fail() -> None:
        ran.append(1)
        raise OSError

    with running(app, threads=1):
        told = pika.BasicProperties(type="fail", headers={"large": "x" * 131_000}, message_id="large")
        assert vhost.publish(TASKS, QUEUE, b"{}", told)
        letter = vhost.wait_for_message(DEAD)
    assert letter.headers["aw-dead-reason"] == "failed"
    assert ran == [1], "it did not run again without its sender's headers"


def test_headers_that_the_broker_makes_longer_than_a_frame_stop_no_worker(
    vhost: Broker, make_app: Callable[..., App]
) -> None:
    """RabbitMQ 3.10.8 adds `x-death` to what just fitted, and sends it."""
    app = make_app()
    ran: list[int] = []

    @app.task(name="fail", queue=QUEUE, retry=[0.125])
    def fail() -> None:
        ran.append(1)
        if len(ran) == 1:
            raise OSError

    with running(app, threads=1) as worker:
        connection = worker.process.consumer.keeper.connection
        told = pika.BasicProperties(type="fail", headers={"large": "x" * 130_860}, delivery_mode=2)
        assert vhost.publish(TASKS, QUEUE, b"{}", told)
        wait_until(lambda: len(ran) == 2, what="it is retried")
        assert worker.process.consumer.keeper.connection is connection
    assert vhost.count(QUEUE) == 0


def test_what_the_broker_gives_up_arrives_in_the_dead_letter_queue_too(
    vhost: Broker, make_app: Callable[..., App]
) -> None:
    """The delivery limit is the backstop: no worker decides on such a message, and it is not lost."""
    app = make_app()

    @app.task(name="note", queue=QUEUE)
    def note() -> None: ...

    with running(app, threads=1):
        pass  # declares the topology
    sent = note.send()
    with raw_channel(vhost.url) as channel:
        for _ in range(201):
            method, _, _ = channel.basic_get(QUEUE)
            assert method is not None
            channel.basic_nack(method.delivery_tag, requeue=True)
        wait_until(lambda: vhost.count(DEAD) == 1, what="it is dead-lettered")
    letter = vhost.get(DEAD)
    assert letter is not None
    assert letter.properties.message_id == sent.id
    assert letter.headers["x-death"][0]["reason"] == "delivery_limit"
    assert "aw-dead-reason" not in letter.headers


def test_a_message_whose_queue_is_gone_when_it_falls_due_is_parked(vhost: Broker, make_app: Callable[..., App]) -> None:
    app = make_app()

    @app.task(name="note", queue=QUEUE)
    def note() -> None: ...

    @app.task(name="other", queue="other")
    def other() -> None: ...

    lost = note.options(delay=0.5).send()
    other.options(delay=0.5).send()
    vhost.delete_queue(QUEUE)
    parked = vhost.wait_for_message("amqpworker.parked")
    assert parked.properties.message_id == lost.id
    assert parked.routing_key == QUEUE
    vhost.wait_for_count("other", 1)


def test_a_retry_whose_queue_is_gone_meanwhile_is_parked(vhost: Broker, make_app: Callable[..., App]) -> None:
    app = make_app(declare=False)
    declaring = make_app()
    declaring.queue(QUEUE)

    @declaring.task(name="fail", queue=QUEUE, retry=[1])
    def fail() -> None:
        raise OSError

    with running(declaring, threads=1) as worker:
        sent = fail.send()
        wait_until(lambda: vhost.count("amqpworker.delay.03") == 1, what="it waits for its second run")
        worker.process.stop_requested.set()
        wait_until(lambda: worker.code is not None, what="the worker ends")
        vhost.delete_queue(QUEUE)
        parked = vhost.wait_for_message("amqpworker.parked")
    assert parked.properties.message_id == sent.id
    assert app.plan.queues == {}


def test_a_dead_letter_waits_until_it_can_be_published(
    vhost: Broker, make_app: Callable[..., App], caplog: pytest.LogCaptureFixture
) -> None:
    """Its original is not acknowledged before: it would be lost."""
    app = make_app(send_timeout=1)
    ran, go = threading.Event(), threading.Event()

    @app.task(name="fail", queue=QUEUE, retry=None)
    def fail() -> None:
        ran.set()
        go.wait(30)
        raise ValueError

    with running(app, threads=1):
        fail.send()
        assert ran.wait(10)
        vhost.management.request("DELETE", "exchanges", vhost.vhost, "amqpworker.dead")
        go.set()
        wait_until(lambda: "copies_unconfirmed" in caplog.text, what="it cannot be published")
        assert vhost.count(DEAD) == 0
        arguments = {"alternate-exchange": "amqpworker.parked"}
        body = {"type": "direct", "durable": True, "arguments": arguments}
        vhost.management.request("PUT", "exchanges", vhost.vhost, "amqpworker.dead", body=body)
        binding = {"routing_key": QUEUE, "arguments": {}}
        vhost.management.request("POST", "bindings", vhost.vhost, "e", "amqpworker.dead", "q", DEAD, body=binding)
        vhost.wait_for_count(DEAD, 1)
    assert vhost.count(QUEUE) == 0
    assert vhost.count("amqpworker.parked") == 0


def test_a_call_of_an_unknown_task_is_answered_at_once_and_leaves_a_letter(vhost: Broker, app: App) -> None:
    @app.task(name="known", queue=QUEUE)
    def known() -> None: ...

    @app.remote(name="unknown", queue=QUEUE)
    def unknown() -> int: ...

    @app.remote(name="shop.tasks.known", queue=QUEUE)
    def elsewhere() -> int: ...

    with running(app, threads=1):
        with pytest.raises(
            TaskFailed, match=r"no task 'shop\.tasks\.known' .*: it has 'known': import the module by one"
        ):
            elsewhere.options(timeout=20).call()
        assert "it has 'known'" in vhost.wait_for_message(DEAD).headers["aw-error"]
        began = time.monotonic()
        try:
            unknown.options(timeout=20).call()
        except TaskFailed as error:
            failed = error
        assert time.monotonic() - began < 5
        assert failed.reason == "unknown-task"
        assert vhost.wait_for_message(DEAD).headers["aw-dead-reason"] == "unknown-task"
