"""Each way in which a message is not sent: one error each, in bounded time, with the message to send again."""

from __future__ import annotations

import copy
import pickle
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.parse import quote

import pytest

from amqpworker import (
    AccessRefused,
    App,
    BatchFailed,
    ConfigError,
    ConnectionBlocked,
    InvalidArguments,
    Message,
    NotConnected,
    QueueUnavailable,
    SendError,
    Unconfirmed,
    Unroutable,
)
from amqpworker.routing.topology import work_queue
from amqpworker.task import RemoteTask
from amqpworker.testing.processes import free_ports
from tests.integration.tasks import QUEUE, echo_of, messages
from tests.nodes import Node
from tests.proxy import Proxy
from tests.support import Broker, raw_channel, wait_until

MakeApp = Callable[..., App]


@contextmanager
def takes_at_most(seconds: float) -> Iterator[None]:
    begin = time.monotonic()
    yield
    assert time.monotonic() - begin < seconds


def sends(app: App, message: Message | None) -> bool:
    """Try to send a message, and return whether it was confirmed."""
    assert message is not None
    try:
        app.send(message)
    except (ConnectionBlocked, Unconfirmed):
        return False
    return True


def ids_in(broker: Broker, queue: str) -> list[str]:
    """Return the ids of all messages that are ready in a queue, and leave them there."""
    with raw_channel(broker.url) as channel:
        found = []
        while (got := channel.basic_get(queue))[0] is not None:
            found.append(got[1].message_id)
        channel.basic_nack(0, multiple=True)
    return found


@pytest.fixture
def stranger(vhost: Broker) -> Iterator[Callable[..., str]]:
    """Make a user with these permissions only, and return the URL of the virtual host for it."""
    name = f"user-of-{vhost.vhost}"

    def make(configure: str = "", write: str = "", read: str = "") -> str:
        vhost.management.create_user(name, "sesame-47")
        vhost.management.set_permissions(vhost.vhost, name, configure, write, read)
        return vhost.node.url(vhost.vhost, name, "sesame-47")

    yield make
    vhost.management.delete_user(name)


def test_a_message_for_an_undeclared_queue_is_unroutable_and_can_be_sent_again(app: App, vhost: Broker) -> None:
    echo = echo_of(app)
    echo.send("makes the exchanges")
    with pytest.raises(Unroutable, match="'nowhere'") as caught:
        echo.options(queue="nowhere").send("x")
    message = caught.value.message
    assert message is not None
    assert message.queue == "nowhere"

    vhost.declare_queue("nowhere")
    with raw_channel(vhost.url) as channel:
        channel.queue_bind("nowhere", "amqpworker.tasks", "nowhere")
    assert app.send(message).id == message.id
    found = vhost.get("nowhere")
    assert found is not None
    assert found.properties.message_id == message.id
    assert found.body == message.body


def test_a_typo_in_the_name_of_a_queue_does_not_disturb_others(app: App, vhost: Broker) -> None:
    echo = echo_of(app)
    outcomes = list(
        app.send_each(echo.options(queue=QUEUE if number % 3 else "nowhere").message("x") for number in range(300))
    )
    assert [isinstance(one, Unroutable) for one in outcomes] == [number % 3 == 0 for number in range(300)]
    assert vhost.count(QUEUE) == 200


def test_two_messages_with_one_id_are_distinguished(app: App) -> None:
    echo = echo_of(app)
    echo.send("first")
    pairs = [echo.options(id="same", queue=queue).message("x") for queue in (QUEUE, "nowhere", QUEUE, "nowhere")]
    outcomes = list(app.send_each(pairs))
    assert [isinstance(one, Unroutable) for one in outcomes] == [False, True, False, True]


def test_a_full_queue_that_names_no_bound_refuses_until_the_timeout(make_app: MakeApp, vhost: Broker) -> None:
    app = make_app(send_timeout=1.0)
    echo_of(app).send("makes the exchanges")
    vhost.declare_queue("small", x_max_length=2, x_overflow="reject-publish")
    with raw_channel(vhost.url) as channel:
        channel.queue_bind("small", "amqpworker.tasks", "small")
    small = app.remote(name="test.small", queue=QUEUE)(lambda: None).options(queue="small")
    # one by one: a quorum queue lets a burst through before it reports that it is full
    outcomes = [outcome for _ in range(6) for outcome in app.send_each([small.message()])]
    refused = [one for one in outcomes if isinstance(one, QueueUnavailable)]
    assert vhost.count("small") == 6 - len(refused) >= 2
    assert "'small'" in str(refused[0])
    assert "has a length limit that this app does not declare" in str(refused[0])

    vhost.management.purge_queue(vhost.vhost, "small")
    assert refused[0].message is not None
    app.send(refused[0].message)
    assert ids_in(vhost, "small") == [refused[0].message.id]


def test_what_a_full_queue_refused_is_taken_once_it_has_room_within_the_time(app: App, vhost: Broker) -> None:
    echo_of(app).send("makes the exchanges")
    vhost.declare_queue("small", x_max_length=1, x_overflow="reject-publish")
    with raw_channel(vhost.url) as channel:
        channel.queue_bind("small", "amqpworker.tasks", "small")
    small = app.remote(name="test.small", queue=QUEUE)(lambda: None).options(queue="small")
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(lambda: [small.send() for _ in range(4)])
        while not sending.done():
            vhost.management.purge_queue(vhost.vhost, "small")
        assert len(sending.result()) == 4


def test_without_a_confirm_in_time_the_fate_is_unknown(make_app: MakeApp, vhost: Broker) -> None:
    with Proxy(vhost.url) as proxy:
        app = make_app(proxy.url, send_timeout=0.7)
        echo = echo_of(app)
        echo.send("before")
        proxy.swallow("to_client")
        with takes_at_most(2.0), pytest.raises(Unconfirmed, match="may have arrived") as caught:
            echo.send("during")
        assert caught.value.message is not None
        assert vhost.count(QUEUE) == 2

        proxy.heal()
        proxy.reset()
        wait_until(lambda: sends(app, caught.value.message), 5)
        assert set(ids_in(vhost, QUEUE)[1:]) == {caught.value.message.id}


def test_what_the_network_swallows_is_unconfirmed_in_time(make_app: MakeApp, vhost: Broker) -> None:
    with Proxy(vhost.url) as proxy:
        app = make_app(proxy.url, send_timeout=0.7)
        echo = echo_of(app)
        echo.send("before")
        proxy.swallow("to_broker")
        with takes_at_most(2.0), pytest.raises(Unconfirmed):
            echo.send("during")
        outcomes = list(app.send_each(messages(echo, 50)))
        assert [type(one) for one in outcomes] == [Unconfirmed] * 50
        assert vhost.count(QUEUE) == 1


def test_a_reset_in_mid_frame_leaves_no_doubt_about_what_was_confirmed(make_app: MakeApp, vhost: Broker) -> None:
    with Proxy(vhost.url) as proxy:
        app = make_app(proxy.url, resend=False)
        echo = echo_of(app)
        echo.send("before")
        for after in (10, 50_001):
            proxy.reset_after(after, "to_broker")
            before = set(ids_in(vhost, QUEUE))
            outcomes = list(app.send_each(messages(echo, 300, "y" * 500)))
            assert any(isinstance(one, Unconfirmed) for one in outcomes)
            confirmed = {one.id for one in outcomes if not isinstance(one, SendError)}
            assert confirmed <= set(ids_in(vhost, QUEUE)) - before
            wait_until(lambda: sends(app, echo.message("healthy again")), 5)
        proxy.reset_after(5, "to_client")
        with pytest.raises(Unconfirmed):
            echo.send("x")


def test_a_broker_that_is_away_is_not_connected_in_time(make_app: MakeApp, vhost: Broker) -> None:
    port = free_ports(1)[0]
    app = make_app(f"amqp://127.0.0.1:{port}/", send_timeout=0.5)
    with takes_at_most(1.5), pytest.raises(NotConnected, match=f"127.0.0.1:{port}") as caught:
        echo_of(app).send("x")
    assert caught.value.message is not None
    with takes_at_most(1.5), pytest.raises(BatchFailed) as batch:
        app.send_many(messages(app.remotes["test.echo"], 10))
    assert [type(one) for one in batch.value.exceptions] == [NotConnected] * 10

    other = make_app()
    echo_of(other)
    assert other.send(caught.value.message).id == caught.value.message.id
    assert vhost.count(QUEUE) == 1


def test_an_alarm_blocks_in_time_and_sending_works_again_after_it(make_app: MakeApp, spare_node: Node) -> None:
    app = make_app(spare_node.url(), send_timeout=0.7)
    echo = echo_of(app, "alarmed")
    echo.send("before")
    spare_node.rabbitmqctl("set_vm_memory_high_watermark", "0")
    try:
        written, unwritten = blocks(app, echo)
    finally:
        spare_node.rabbitmqctl("set_vm_memory_high_watermark", "0.4")
    wait_until(lambda: sends(app, unwritten), 10, "sending works again")
    # what had been written when the alarm came arrives, what had not does not
    ids = ids_in(Broker(spare_node, "/"), "alarmed")
    assert ids[1] == written.id
    assert ids.count(unwritten.id) == 1


def blocks(app: App, echo: RemoteTask[[str], str]) -> tuple[Message, Message]:
    """Try all that sends under an alarm; return the messages that had been written, and had not."""
    with takes_at_most(2.0), pytest.raises(ConnectionBlocked, match="alarm") as first:
        echo.send("first")
    with takes_at_most(2.0), pytest.raises(ConnectionBlocked, match="alarm") as second:
        echo.send("second")
    with takes_at_most(2.0), pytest.raises(ConnectionBlocked):
        echo.options(timeout=0.7).call("third")
    with takes_at_most(2.0), pytest.raises(BatchFailed) as batch:
        app.send_many(messages(echo, 10))
    assert all(isinstance(one, ConnectionBlocked) for one in batch.value.exceptions)
    assert first.value.message is not None
    assert second.value.message is not None
    return first.value.message, second.value.message


def test_without_permission_to_publish_access_is_refused_and_others_are_sent(
    make_app: MakeApp, vhost: Broker, stranger: Callable[..., str]
) -> None:
    echo_of(make_app()).send("makes the topology")
    app = make_app(stranger(read=".*"), declare=False)
    with takes_at_most(2.0), pytest.raises(AccessRefused, match=r"exchange 'amqpworker\.tasks'") as caught:
        echo_of(app).send("x")
    assert caught.value.message is not None
    assert "sesame" not in str(caught.value)
    assert "lacks the permission `write`" in str(caught.value)
    assert "DECLARE" not in str(caught.value)  # it is off already

    vhost.management.set_permissions(vhost.vhost, f"user-of-{vhost.vhost}", "", ".*", "")
    app.close()  # the broker caches a connection's permissions for a while
    app.send(caught.value.message)
    assert vhost.count(QUEUE) == 2


def test_without_permission_to_declare_access_is_refused_with_advice(
    make_app: MakeApp, stranger: Callable[..., str]
) -> None:
    app = make_app(stranger(write=".*", read=".*"))
    with takes_at_most(2.0), pytest.raises(AccessRefused, match="AMQPWORKER_DECLARE=0") as caught:
        echo_of(app).send("x")
    assert caught.value.message is not None


def test_each_failed_message_has_an_error_of_its_own(make_app: MakeApp, stranger: Callable[..., str]) -> None:
    app = make_app(stranger(write=".*", read=".*"))
    batch = list(messages(echo_of(app), 10))
    with pytest.raises(BatchFailed) as caught:
        app.send_many(batch)
    assert [one.message for one in caught.value.exceptions] == batch


def test_a_refused_login_is_forbidden_at_once_and_does_not_show_the_password(
    make_app: MakeApp, vhost: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app(vhost.node.url(vhost.vhost, "guest", "sesame-47"))
    echo = echo_of(app)
    for _ in range(3):
        with takes_at_most(3.0), pytest.raises(AccessRefused, match=r"refused the login of user 'guest'") as caught:
            echo.send("x")
        assert "sesame" not in str(caught.value)
    assert "sesame" not in caplog.text
    assert "Traceback" not in caplog.text


def test_an_unknown_virtual_host_is_forbidden_at_once(make_app: MakeApp, vhost: Broker) -> None:
    app = make_app(vhost.node.url("no-such-host"))
    with takes_at_most(3.0), pytest.raises(AccessRefused, match="virtual host 'no-such-host'"):
        echo_of(app).send("x")


def test_a_virtual_host_of_others_is_forbidden_at_once(
    make_app: MakeApp, vhost: Broker, stranger: Callable[..., str]
) -> None:
    url = stranger(write=".*").removesuffix(quote(vhost.vhost, safe="")) + "%2F"
    with takes_at_most(3.0), pytest.raises(AccessRefused, match="virtual host '/'"):
        echo_of(make_app(url)).send("x")


def test_a_queue_with_other_arguments_names_the_argument_and_both_values(app: App, vhost: Broker) -> None:
    (arguments,) = [dict(one.arguments) for one in work_queue("amqpworker", QUEUE).queues if one.name == QUEUE]
    assert arguments["x-delivery-limit"] == 200
    vhost.management.declare_queue(vhost.vhost, QUEUE, arguments | {"x-delivery-limit": 5})
    echo = echo_of(app)
    other = app.remote(name="test.other", queue="other")(lambda: None)
    for _ in range(3):
        with takes_at_most(2.0), pytest.raises(ConfigError) as caught:
            echo.send("x")
        for told in (f"'{QUEUE}'", "x-delivery-limit", "200", "5"):
            assert told in str(caught.value)
        other.send()
    assert vhost.count("other") == 3


def test_a_missing_exchange_is_unroutable_and_sending_continues_once_it_exists(
    make_app: MakeApp, vhost: Broker
) -> None:
    app = make_app(declare=False)
    with takes_at_most(2.0), pytest.raises(Unroutable, match=r"amqpworker\.tasks") as caught:
        echo_of(app).send("x")
    assert caught.value.message is not None
    echo_of(make_app()).send("makes the topology")
    app.send(caught.value.message)
    assert vhost.count(QUEUE) == 2


def test_an_exchange_that_was_deleted_is_declared_anew_for_the_next_message(app: App, vhost: Broker) -> None:
    echo = echo_of(app)
    echo.send("x")
    with raw_channel(vhost.url) as channel:
        channel.exchange_delete("amqpworker.tasks")
    echo.send("x")
    assert vhost.count(QUEUE) == 2


def test_bad_arguments_are_refused_before_anything_leaves(app: App, vhost: Broker) -> None:
    with pytest.raises(InvalidArguments, match="text"):
        echo_of(app).send(5)  # type: ignore[arg-type]
    with pytest.raises(InvalidArguments, match="1048576"):
        app.remotes["test.echo"].send("x" * 1024 * 1024)
    assert vhost.queues() == []


def test_a_failed_batch_reports_what_was_sent_and_what_was_not(app: App, vhost: Broker) -> None:
    echo = echo_of(app)
    batch = [echo.options(queue=queue).message("x") for queue in (QUEUE, "nowhere", QUEUE, "elsewhere")]
    with pytest.raises(BatchFailed, match="2 of 4") as caught:
        app.send_many(batch)
    error = caught.value
    assert [one.id for one in error.sent] == [batch[0].id, batch[2].id]
    assert [one.message for one in error.exceptions] == [batch[1], batch[3]]

    seen: list[SendError] = []
    try:
        raise error
    except* Unroutable as group:
        seen += group.exceptions
        sent = group.sent
    assert sent == error.sent
    assert [one.message for one in seen] == [batch[1], batch[3]]


def test_errors_can_be_pickled_and_copied(app: App) -> None:
    echo = echo_of(app)
    batch = [echo.options(queue=queue).message("x") for queue in (QUEUE, "nowhere")]
    with pytest.raises(BatchFailed) as caught:
        app.send_many(batch)
    for again in (pickle.loads(pickle.dumps(caught.value)), copy.copy(caught.value), copy.deepcopy(caught.value)):
        assert type(again) is BatchFailed
        assert [one.id for one in again.sent] == [batch[0].id]
        assert [(type(one), str(one), one.message) for one in again.exceptions] == [
            (Unroutable, str(caught.value.exceptions[0]), batch[1])
        ]
