"""The producer's connection: it is made again by itself, and another server is reported in time and in plain words."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import pytest

from amqpworker import App, ConfigError, NotConnected, SendError, Unconfirmed
from amqpworker.testing.processes import free_ports
from tests.integration.tasks import QUEUE, echo_of, messages
from tests.nodes import Node
from tests.proxy import Proxy
from tests.support import Broker, raw_channel, wait_until

MakeApp = Callable[..., App]


def comes_back(app: App, timeout: float = 10.0) -> None:
    """Send until a message is confirmed."""

    def sends() -> bool:
        try:
            app.remotes["test.echo"].send("back")
        except SendError:
            return False
        return True

    wait_until(sends, timeout, "sending works again")


def test_a_connection_closed_by_an_administrator_comes_back(
    app: App, vhost: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    echo_of(app).send("x")
    vhost.close_connections()
    wait_until(lambda: "connection_lost" in caplog.text, what="it is lost")
    comes_back(app)


def test_a_restart_loses_no_message_and_those_sent_meanwhile_wait(make_app: MakeApp, spare_node: Node) -> None:
    echo = echo_of(make_app(spare_node.url(), send_timeout=40.0), "survivors")
    before = [echo.send("x").id for _ in range(20)]
    spare_node.stop()
    during: list[str] = []
    threads = [threading.Thread(target=lambda: during.append(echo.send("x").id)) for _ in range(10)]
    for thread in threads:
        thread.start()
    spare_node.start()
    for thread in threads:
        thread.join(40)
    assert len(during) == 10
    broker = Broker(spare_node, "/")
    wait_until(lambda: broker.count("survivors") == 20 + 10, 15)
    assert ids_of(broker, "survivors") == {*before, *during}


def test_a_reset_connection_comes_back(make_app: MakeApp, vhost: Broker) -> None:
    with Proxy(vhost.url) as proxy:
        app = make_app(proxy.url)
        echo = echo_of(app)
        for number in range(1, 4):
            echo.send("x")
            assert proxy.accepted == number
            proxy.reset()
            comes_back(app)


def test_the_next_address_is_taken_where_one_is_away(make_app: MakeApp, vhost: Broker) -> None:
    away = f"amqp://127.0.0.1:{free_ports(1)[0]}/"
    app = make_app(f"{away},{vhost.url}")
    begin = time.monotonic()
    echo_of(app).send("x")
    assert time.monotonic() - begin < 1.0
    with Proxy(vhost.url) as one, Proxy(vhost.url) as other:
        both = make_app(f"{one.url},{other.url}")
        echo_of(both).send("x")
        assert one.accepted + other.accepted == 1
        (one if one.accepted else other).__exit__(None, None, None)
        comes_back(both)
        assert one.accepted
        assert other.accepted


def test_connections_begin_at_one_of_several_addresses_by_chance(make_app: MakeApp, vhost: Broker) -> None:
    with Proxy(vhost.url) as one, Proxy(vhost.url) as other:
        apps = [make_app(f"{one.url},{other.url}") for _ in range(24)]
        for app in apps:
            app.producer.publisher.start()
        wait_until(lambda: one.accepted + other.accepted == 24, 20, "all are connected")
        assert one.accepted
        assert other.accepted
        for app in apps:
            app.close()


def test_the_next_address_is_taken_where_one_is_wrong(make_app: MakeApp, vhost: Broker) -> None:
    refused = vhost.node.url(vhost.vhost, "guest", "not-the-password")
    echo_of(make_app(f"{refused},{vhost.url}")).send("x")
    assert vhost.count(QUEUE) == 1


def test_fifty_threads_send_while_the_connection_is_closed_every_second(make_app: MakeApp, vhost: Broker) -> None:
    app = make_app()
    echo = echo_of(app)
    echo.send("makes the topology")
    end = time.monotonic() + 5.0
    confirmed: list[str] = []
    outcomes: Counter[str] = Counter()
    last: dict[int, float] = {}

    def run(number: int) -> None:
        while time.monotonic() < end:
            begin = time.monotonic()
            try:
                confirmed.append(echo.send("x").id)
                outcomes["sent"] += 1
                last[number] = time.monotonic()
            except SendError as error:
                outcomes[type(error).__name__] += 1
            assert time.monotonic() - begin < 7.0

    threads = [threading.Thread(target=run, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    while time.monotonic() < end - 1.5:
        reached = len(confirmed) + 100
        wait_until(lambda: len(confirmed) >= reached)  # noqa: B023 - called before the next round
        vhost.close_connections()  # takes a second by itself
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert set(outcomes) <= {"sent", "Unconfirmed"}
    assert len(last) == 50
    assert min(last.values()) > end - 2.0  # all came back
    assert set(confirmed) <= ids_of(vhost, QUEUE)


def ids_of(broker: Broker, queue: str) -> set[str]:
    """Take all messages of a queue, and return their ids."""
    with raw_channel(broker.url) as channel:
        count = channel.queue_declare(queue, passive=True).method.message_count
        found = set()
        for _, properties, _ in channel.consume(queue, auto_ack=True):
            found.add(properties.message_id)
            count -= 1
            if count == 0:
                return found
    raise AssertionError("the queue was empty")


def test_a_connection_that_confirms_nothing_is_given_up(make_app: MakeApp, vhost: Broker) -> None:
    with Proxy(vhost.url) as proxy:
        app = make_app(proxy.url, send_timeout=0.5, connect_timeout=1.0, heartbeat=0)
        echo_of(app).send("x")
        proxy.swallow("to_client")
        with pytest.raises(Unconfirmed):
            app.remotes["test.echo"].send("x")
        # the old connection stays as it is: only giving it up helps
        wait_until(lambda: proxy.accepted == 2, 20, "a second connection is tried")
        proxy.heal()
        comes_back(app)


def test_closing_a_connection_that_does_not_answer_is_bounded(make_app: MakeApp, vhost: Broker) -> None:
    with Proxy(vhost.url) as proxy:
        before = threading.active_count()
        app = make_app(proxy.url, heartbeat=0, send_timeout=3.0)
        echo_of(app).send("x")
        proxy.swallow("to_client")
        begin = time.monotonic()
        app.close()
        assert time.monotonic() - begin < 5.0
        proxy.__exit__(None, None, None)
        wait_until(lambda: threading.active_count() <= before + 1, what="no thread is left")


def test_closing_while_the_broker_is_away_is_bounded(make_app: MakeApp) -> None:
    app = make_app(f"amqp://127.0.0.1:{free_ports(1)[0]}/", send_timeout=0.2)
    before = threading.active_count()
    with pytest.raises(NotConnected):
        echo_of(app).send("x")
    begin = time.monotonic()
    app.close()
    assert time.monotonic() - begin < 1.0
    assert threading.active_count() == before


def test_who_sends_all_the_time_does_not_try_to_connect_all_the_time(make_app: MakeApp) -> None:
    with server(b"", hangs_up=True) as (url, tried):
        app = make_app(url, send_timeout=0.05)
        echo = echo_of(app)
        end = time.monotonic() + 3.0
        while time.monotonic() < end:
            with suppress(SendError):
                echo.send("x")
        # the first three rounds come within a second, then there are at most three each second
        assert 2 <= len(tried) <= 13


# ---- what listens is another server -------------------------------------------------------------------------------


@contextmanager
def server(says: bytes, hangs_up: bool) -> Iterator[tuple[str, list[float]]]:
    """Listen, and answer whatever comes with these bytes; yields a URL with a password, and when it was called."""
    listener = socket.create_server(("127.0.0.1", 0))
    called: list[float] = []
    held: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            called.append(time.monotonic())
            held.append(client)
            with suppress(OSError):
                if says:
                    client.recv(8)
                    client.sendall(says)
                if hangs_up:
                    client.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"amqp://guest:sesame-47@127.0.0.1:{listener.getsockname()[1]}/", called
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)
        for client in held:
            client.close()


HTTP = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
OTHER_AMQP = b"AMQP\x00\x01\x00\x00"

STRANGERS = {
    "speaks HTTP and hangs up": (HTTP, True, ConfigError, "does not speak AMQP 0-9-1"),
    "speaks AMQP 1.0 and hangs up": (OTHER_AMQP, True, ConfigError, "does not speak AMQP 0-9-1"),
    "sends garbage": (b"\xff" * 4096, True, ConfigError, "does not speak AMQP 0-9-1"),
    "sends nothing": (b"", False, NotConnected, "no response from"),
    "hangs up at once": (b"", True, NotConnected, "closed the connection without a response"),
}


@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_server_that_is_not_a_broker_is_reported_in_plain_words_and_in_time(
    make_app: MakeApp, stranger: str, caplog: pytest.LogCaptureFixture
) -> None:
    says, hangs_up, kind, told = STRANGERS[stranger]
    with server(says, hangs_up) as (url, _):
        app = make_app(url, send_timeout=0.8, connect_timeout=0.5)
        begin = time.monotonic()
        with pytest.raises(kind, match=told) as caught:
            echo_of(app).send("x")
        assert time.monotonic() - begin < 2.5
        app.close()
    text = str(caught.value)
    assert f"127.0.0.1:{urlsplit(url).port}" in text
    assert "\n" not in text
    assert "sesame" not in text + caplog.text
    assert "Traceback" not in caplog.text
    assert not [record for record in caplog.records if record.name.startswith("pika")]


def test_a_host_without_an_address_is_reported(make_app: MakeApp) -> None:
    app = make_app("amqp://guest:sesame-47@no-such-host.invalid/", send_timeout=2.0)
    with pytest.raises(NotConnected, match=r"'no-such-host\.invalid'") as caught:
        echo_of(app).send("x")
    assert "sesame" not in str(caught.value)


def test_a_url_that_cannot_be_read_is_refused_at_the_first_use(make_app: MakeApp) -> None:
    for url in (
        "amqp://guest:se/same@host/",
        "http://guest:sesame@host/",
        "amqp://guest:sesame@host:99999/",
        "",
        "host",
    ):
        with pytest.raises(ConfigError) as caught:
            list(make_app(url).send_each(messages(echo_of(make_app(url)), 1)))
        assert "same" not in str(caught.value)
