"""What closes a channel harms nothing but itself: sends, copies and replies have channels of their own."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pika
import pytest

from amqpworker import AccessRefused, App, ConfigError
from amqpworker.model.message import Properties, Publication
from tests.integration.tasks import QUEUE, echo_of
from tests.support import Broker, raw_channel, wait_until
from tests.workers import running

MakeApp = Callable[..., App]


@pytest.fixture
def stranger(vhost: Broker) -> Iterator[Callable[..., str]]:
    """Make a user with these permissions only, and return the URL of the virtual host for it."""
    name = f"user-of-{vhost.vhost}"

    def make(write: str, read: str = ".*") -> str:
        vhost.management.create_user(name, "sesame-47")
        vhost.management.set_permissions(vhost.vhost, name, "", write, read)
        return vhost.node.url(vhost.vhost, name, "sesame-47")

    yield make
    vhost.management.delete_user(name)


def declare_all(make_app: MakeApp) -> None:
    """Make the topology as an administrator does, the ladder too."""
    echo = echo_of(make_app())
    echo.options(delay=3600).send("makes the ladder")


def test_sends_that_are_forbidden_fail_no_good_one(
    make_app: MakeApp, vhost: Broker, stranger: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    declare_all(make_app)
    app = make_app(stranger(write=r"^amqpworker\.tasks$"), declare=False)
    echo = echo_of(app)
    stop = threading.Event()

    def send_what_is_forbidden() -> int:
        count = 0
        while not stop.is_set():
            with pytest.raises(AccessRefused, match=r"amqpworker\.delay"):
                echo.options(delay=60).send("x")
            count += 1
        return count

    with ThreadPoolExecutor(4) as pool:
        bad = [pool.submit(send_what_is_forbidden) for _ in range(4)]
        for _ in range(200):
            echo.send("x")
        stop.set()
        assert all(one.result() for one in bad)
    assert vhost.count(QUEUE) == 200
    closed = [one for one in caplog.records if one.getMessage().startswith("publish_channel_closed")]
    assert len(closed) <= 1


def test_a_reply_that_is_forbidden_makes_no_retry_run_twice(
    make_app: MakeApp, vhost: Broker, stranger: Callable[..., str]
) -> None:
    declare_all(make_app)
    app = make_app(stranger(write=r"^amqpworker\."), declare=False)
    runs: Counter[str] = Counter()

    @app.task(name="replies", queue=QUEUE)
    def replies() -> int:
        return 1

    @app.task(name="fails", queue=QUEUE, retry=[0])
    def fails(name: str) -> None:
        runs[name] += 1
        if runs[name] == 1:
            raise OSError("the first time")

    count = 200
    for number in range(count):
        asked = pika.BasicProperties(type="replies", reply_to="somebodys.queue", delivery_mode=2)
        vhost.publish("amqpworker.tasks", QUEUE, b"{}", asked)
        failing = pika.BasicProperties(type="fails", delivery_mode=2, message_id=str(number))
        vhost.publish("amqpworker.tasks", QUEUE, b'{"name": "%d"}' % number, failing)
    with running(app, threads=4) as worker:
        wait_until(lambda: len(runs) == count and set(runs.values()) >= {2}, 60, "all have run twice")
        wait_until(lambda: vhost.count(QUEUE) == 0 and worker.process.settler.is_idle(), 30, "all is settled")
    assert set(runs.values()) == {2}


def server_of(vhost: Broker, queue: str) -> str:
    """Return the Erlang expression for the process of a quorum queue's member."""
    return f'whereis(list_to_atom("{vhost.vhost.replace("/", "%2F")}_{queue}"))'


def test_a_copy_is_published_once_however_late_its_confirm_is(make_app: MakeApp, vhost: Broker) -> None:
    app = make_app(send_timeout=0.5)

    @app.task(name="fails", queue=QUEUE, retry=None)
    def fails() -> None:
        raise OSError("always")

    @app.task(name="passes", queue=QUEUE, result=False)
    def passes() -> None: ...

    passes.send()
    with running(app, threads=1) as worker:
        copies = worker.process.settler.republisher
        wait_until(lambda: vhost.count(QUEUE) == 0, what="the queues are there")
        vhost.node.rabbitmqctl("eval", f"sys:suspend({server_of(vhost, QUEUE + '.dead')}).")
        fails.send()
        wait_until(lambda: copies.overdue(time.monotonic()) == 1, 20, "its dead letter is not confirmed in time")
        for _ in range(20):
            passes.send()
        wait_until(lambda: vhost.count(QUEUE) == 0, what="others continue meanwhile")
        assert not copies.waiting
        vhost.node.rabbitmqctl("eval", f"sys:resume({server_of(vhost, QUEUE + '.dead')}).")
        wait_until(worker.process.settler.is_idle, 30, "the letter is confirmed")
    assert vhost.count(QUEUE + ".dead") == 1


def test_a_copy_to_an_exchange_that_is_missing_holds_up_no_letter(
    make_app: MakeApp, vhost: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    declare_all(make_app)
    app = make_app(declare=False)

    @app.task(name="retried", queue=QUEUE, retry=[4.0])
    def retried() -> None:
        raise OSError("again in four seconds")

    @app.task(name="fails", queue=QUEUE, retry=None)
    def fails(number: int) -> None:
        raise OSError("always")

    with raw_channel(vhost.url) as channel:
        channel.exchange_delete("amqpworker.delay.05")
    with running(app, threads=4, prefetch=50) as worker, caplog.at_level(logging.WARNING):
        for number in range(100):
            if number % 20 == 0:
                retried.send()
            fails.send(number)
        wait_until(lambda: vhost.count(QUEUE + ".dead") >= 100, 30, "each that failed has its letter")
        told = [one for one in caplog.records if one.getMessage().startswith("copy_not_confirmed")]
        assert 1 <= len(told) <= 5
        echo_of(make_app()).options(delay=4).send("makes the exchange again")
        wait_until(worker.process.settler.is_idle, 90, "the retries are with the broker")
        assert vhost.count(QUEUE + ".dead") >= 100
    letters: Counter[str] = Counter()
    with raw_channel(vhost.url) as channel:
        for _ in range(vhost.count(QUEUE + ".dead")):
            _, properties, _ = channel.basic_get(QUEUE + ".dead")
            letters[properties.message_id] += properties.type == "fails"
    assert sum(letters.values()) == 100
    assert max(letters.values()) == 1


def test_what_closes_a_channel_and_is_not_named_holds_up_nothing_that_was_beside_it(
    make_app: MakeApp, vhost: Broker
) -> None:
    """Nothing else is sent meanwhile that would have another channel opened."""
    declare_all(make_app)
    publisher = make_app(send_timeout=20)._producer.publisher
    good, bad = (Properties(message_id="x", user_id=user) for user in (None, "somebody-else"))
    both = [publisher.sends.make_pending(Publication("amqpworker.tasks", QUEUE, one, b"")) for one in (good, bad)]
    began = time.monotonic()
    publisher.sends._inbox.extend(both)
    publisher.start()
    for one in both:
        one.wait()
    assert both[0].error is None
    assert isinstance(both[1].error, ConfigError)
    assert time.monotonic() < began + 15
