"""
What sending raises, in threads, in event loops, and in those that have entered the app: the same errors.

Each way in which the broker does not take a message has one error, in bounded time, with the message to send again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from amqpworker import (
    AccessRefused,
    App,
    BatchFailed,
    ConfigError,
    ConnectionBlocked,
    InvalidArguments,
    NotConnected,
    QueueFull,
    QueueUnavailable,
    Sent,
    Unconfirmed,
    Unroutable,
)
from amqpworker.routing.topology import work_queue
from amqpworker.testing.processes import free_ports
from tests.clients import PATIENCE, Client, failure_of, result_of, seen
from tests.integration.tasks import QUEUE, another_of, echo_of, messages
from tests.nodes import Node
from tests.proxy import Proxy
from tests.support import Broker, raw_channel, wait_until

MakeApp = Callable[..., App]
MakeClient = Callable[[App], Client]

ALARM = "RabbitMQ accepts no messages: it has a memory or disk alarm."
ALARM_LATER = "RabbitMQ has a memory or disk alarm: the message may arrive once the alarm is cleared."
TOO_SLOW = "The message was not sent within 0.5 s: RabbitMQ, or this process, was too slow."
UNKNOWN = "RabbitMQ did not confirm the message, so it may have arrived or not: "


def host_of(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]


# ---- refused by the broker ------------------------------------------------------------------------------------------


def test_a_message_above_the_limit_of_the_broker_fails_alone_and_the_next_one_never_leaves(
    make_app: MakeApp, make_client: MakeClient, spare_node: Node
) -> None:
    limit = "application:set_env(rabbit, max_message_size, {}), persistent_term:put(max_message_size, {})."
    spare_node.rabbitmqctl("eval", limit.format(1000, 1000))
    try:
        client = make_client(make_app(spare_node.url()))
        echo = echo_of(client.app)
        for _ in range(2):
            large = echo.message("x" * 1000)
            ends = [client.send(echo.message("x")) for _ in range(50)]
            kind, text, message = failure_of(client.send(large))
            assert (kind, message) == (InvalidArguments, None)
            assert text == (
                f"The message for queue '{QUEUE}' has 1011 bytes, but this broker accepts at most 1000 (max_message_size): "
                "send a reference to the data instead."
            )
            for end in ends:
                result_of(end)
    finally:
        spare_node.rabbitmqctl("eval", limit.format(134217728, 134217728))


def test_a_full_queue_whose_bound_the_app_declares_is_full_until_it_has_room(
    make_app: MakeApp, make_client: MakeClient, vhost: Broker
) -> None:
    client = make_client(make_app(send_timeout=30.0))
    small = another_of(client.app, client.app.queue("small", max_length=1)).message()
    text = "Queue 'small' is full and rejected the message: send it again later."
    outcomes = [outcome for _ in range(6) for outcome in result_of(client.send_each([small]))]
    refused = [one for one in outcomes if not isinstance(one, Sent)]
    assert refused
    assert [seen(one) for one in refused] == [(QueueFull, text, small)] * len(refused)
    vhost.management.purge_queue(vhost.vhost, "small")
    result_of(client.send(small))
    assert vhost.ids("small") == [small.id]


def test_a_full_queue_that_names_no_bound_refuses_until_the_timeout(
    make_app: MakeApp, make_client: MakeClient, vhost: Broker
) -> None:
    client = make_client(make_app(send_timeout=1.0))
    result_of(client.send(echo_of(client.app).message("makes the exchanges")))
    vhost.bind_queue("small", x_max_length=2, x_overflow="reject-publish")
    small = another_of(client.app).message()
    # one by one: a quorum queue lets a burst through before it reports that it is full
    outcomes = []
    for number in range(6):
        outcomes += result_of(client.send_each([replace(small, queue="small", id=str(number))]))
    refused = [one for one in outcomes if isinstance(one, QueueUnavailable)]
    assert vhost.count("small") == 6 - len(refused) >= 2
    text = str(refused[0])
    assert text.startswith("Queue 'small' rejected the message ")
    assert text.endswith(
        "times: most of its members are down, or it is full and has a length limit that this app does not declare."
    )

    vhost.management.purge_queue(vhost.vhost, "small")
    assert refused[0].message is not None
    result_of(client.send(refused[0].message))
    assert vhost.ids("small") == [refused[0].message.id]


def test_what_a_full_queue_refused_is_taken_once_it_has_room_within_the_time(client: Client, vhost: Broker) -> None:
    result_of(client.send(echo_of(client.app).message("makes the exchanges")))
    vhost.bind_queue("small", x_max_length=1, x_overflow="reject-publish")
    small = another_of(client.app).message()
    ends = [client.send(replace(small, queue="small", id=str(number))) for number in range(4)]
    while not all(end.done() for end in ends):
        vhost.management.purge_queue(vhost.vhost, "small")
    assert [result_of(end).id for end in ends] == ["0", "1", "2", "3"]


def test_a_queue_with_other_arguments_names_the_argument_and_both_values_and_others_are_sent(
    client: Client, vhost: Broker
) -> None:
    (arguments,) = [dict(one.arguments) for one in work_queue("amqpworker", QUEUE).queues if one.name == QUEUE]
    vhost.management.declare_queue(vhost.vhost, QUEUE, arguments | {"x-delivery-limit": 5})
    echo = echo_of(client.app)
    text = (
        f"The queue '{QUEUE}' in vhost '{vhost.vhost}' exists with x-delivery-limit = '5', but amqpworker declares '200': empty "
        "and delete the queue, or use another queue name."
    )
    other = another_of(client.app, "other")
    for _ in range(3):
        assert failure_of(client.send(echo.message("x"))) == (ConfigError, text, None)
        assert failure_of(client.call(echo.message("x"))) == (ConfigError, text, None)
        result_of(client.send(other.message()))
    assert vhost.count("other") == 3


def test_without_permission_to_publish_access_is_refused(
    make_app: MakeApp, make_client: MakeClient, vhost: Broker, stranger: Callable[..., str]
) -> None:
    echo_of(make_app()).send("makes the topology")
    client = make_client(make_app(stranger(read=".*"), declare=False))
    batch = list(messages(echo_of(client.app), 10))
    text = (
        f"RabbitMQ refused publishing: user 'user-of-{vhost.vhost}' lacks the permission `write` on exchange 'amqpworker.tasks' in "
        f"virtual host '{vhost.vhost}'. Grant it (rabbitmqctl set_permissions), or log in as another user."
    )
    assert failure_of(client.send(batch[0])) == (AccessRefused, text, batch[0])
    assert failure_of(client.call(batch[0])) == (AccessRefused, text, batch[0])
    assert failure_of(client.check())[:2] == (AccessRefused, text)
    error = client.send_many(batch).exception(PATIENCE)
    assert isinstance(error, BatchFailed)
    assert [seen(one) for one in error.exceptions] == [(AccessRefused, text, message) for message in batch]

    vhost.management.set_permissions(vhost.vhost, f"user-of-{vhost.vhost}", "", ".*", "")
    client.app.close()  # the broker caches a connection's permissions for a while
    result_of(client.send(batch[0]))
    assert vhost.ids(QUEUE)[1:] == [batch[0].id]


def test_without_permission_to_declare_access_is_refused_with_advice(
    make_app: MakeApp, make_client: MakeClient, vhost: Broker, stranger: Callable[..., str]
) -> None:
    client = make_client(make_app(stranger(write=".*", read=".*")))
    batch = list(messages(echo_of(client.app), 10))
    kind, text, message = failure_of(client.send(batch[0]))
    assert (kind, message) == (AccessRefused, batch[0])
    assert text.startswith(
        f"RabbitMQ refused declaring queue {QUEUE}: user 'user-of-{vhost.vhost}' lacks the permission "
    )
    assert "AMQPWORKER_DECLARE=0" in text
    error = client.send_many(batch).exception(PATIENCE)
    assert isinstance(error, BatchFailed)
    assert [seen(one) for one in error.exceptions] == [(AccessRefused, text, message) for message in batch]


def test_a_missing_exchange_is_unroutable_and_sending_continues_once_it_exists(
    make_app: MakeApp, make_client: MakeClient, vhost: Broker
) -> None:
    client = make_client(make_app(declare=False))
    message = echo_of(client.app).message("x")
    text = (
        "What was required for publishing does not exist: NOT_FOUND - no exchange 'amqpworker.tasks' in vhost "
        f"'{vhost.vhost}'."
    )
    assert failure_of(client.send(message)) == (Unroutable, text, message)
    echo_of(make_app()).send("makes the topology")
    result_of(client.send(message))
    assert vhost.count(QUEUE) == 2


def test_an_exchange_that_was_deleted_is_declared_again_for_the_next_message(client: Client, vhost: Broker) -> None:
    echo = echo_of(client.app)
    result_of(client.send(echo.message("x")))
    with raw_channel(vhost.url) as channel:
        channel.exchange_delete("amqpworker.tasks")
    result_of(client.send(echo.message("x")))
    assert vhost.count(QUEUE) == 2


# ---- the login ------------------------------------------------------------------------------------------------------


def check_refused(client: Client, text: str) -> None:
    """Check the error of all that sends; if entering the app raises it, it has no message."""
    message = echo_of(client.app).message("x")
    refused = (AccessRefused, text, None if client.is_entered else message)
    for _ in range(2):
        assert failure_of(client.send(message)) == refused
    assert failure_of(client.call(message)) == refused
    assert failure_of(client.check()) == (AccessRefused, text, None)


def test_a_refused_login_is_an_error_at_once_and_does_not_show_the_password(
    make_app: MakeApp, make_client: MakeClient, vhost: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    url = vhost.node.url(vhost.vhost, "guest", "sesame-47")
    check_refused(make_client(make_app(url)), f"RabbitMQ at {host_of(url)} refused the login of user 'guest'.")
    assert "sesame" not in caplog.text
    assert "Traceback" not in caplog.text


def test_an_unknown_virtual_host_is_an_error_at_once(make_app: MakeApp, make_client: MakeClient, vhost: Broker) -> None:
    url = vhost.node.url("no-such-host")
    check_refused(make_client(make_app(url)), f"RabbitMQ at {host_of(url)} has no virtual host 'no-such-host'.")


def test_a_virtual_host_of_others_is_an_error_at_once(
    make_app: MakeApp, make_client: MakeClient, vhost: Broker, stranger: Callable[..., str]
) -> None:
    url = stranger(write=".*").removesuffix(quote(vhost.vhost, safe="")) + "%2F"
    check_refused(
        make_client(make_app(url)),
        f"User 'user-of-{vhost.vhost}' has no access to virtual host '/' at {host_of(url)}, or it does not exist.",
    )


def test_a_broker_that_refuses_the_login_when_it_is_back_fails_what_waits(
    make_app: MakeApp, make_client: MakeClient, vhost: Broker
) -> None:
    port = free_ports(1)[0]
    url = vhost.node.url(vhost.vhost, "guest", "wrong").replace(host_of(vhost.url), f"127.0.0.1:{port}")
    client = make_client(make_app(url, send_timeout=20.0))
    message = echo_of(client.app).message("x")
    sending = client.send(message)
    wait_until(lambda: client.publisher().session.problem is not None, what="a first attempt has failed")
    with Proxy(vhost.url, port):
        text = f"RabbitMQ at 127.0.0.1:{port} refused the login of user 'guest'."
        for one in (sending, client.send(message)):
            assert failure_of(one) == (AccessRefused, text, message)


# ---- broker and network ---------------------------------------------------------------------------------------------


def test_a_broker_that_is_away_is_not_connected_in_time(make_app: MakeApp, make_client: MakeClient) -> None:
    port = free_ports(1)[0]
    client = make_client(make_app(f"amqp://127.0.0.1:{port}/", send_timeout=0.5))
    batch = list(messages(echo_of(client.app), 10))
    text = f"Could not connect to RabbitMQ within 0.5 s: connection refused by 127.0.0.1:{port}."
    assert failure_of(client.send(batch[0])) == (NotConnected, text, batch[0])
    assert failure_of(client.call(batch[0], 0.5)) == (NotConnected, text, batch[0])
    assert failure_of(client.check(0.5)) == (NotConnected, text, None)
    error = client.send_many(batch).exception(PATIENCE)
    assert isinstance(error, BatchFailed)
    assert [seen(one) for one in error.exceptions] == [(NotConnected, text, message) for message in batch]


@pytest.mark.parametrize("direction", ["to_client", "to_broker"])
def test_without_a_confirm_in_time_the_fate_is_unknown(
    make_app: MakeApp, make_client: MakeClient, vhost: Broker, direction: Any
) -> None:
    with Proxy(vhost.url) as proxy:
        client = make_client(make_app(proxy.url, send_timeout=0.7))
        echo = echo_of(client.app)
        result_of(client.send(echo.message("before")))
        proxy.swallow(direction)
        unknown = (Unconfirmed, f"{UNKNOWN}it did not confirm in time.")
        first, *batch = messages(echo, 50)
        assert failure_of(client.send(first)) == (*unknown, first)
        assert [seen(one) for one in result_of(client.send_each(batch))] == [(*unknown, message) for message in batch]
        assert failure_of(client.check(0.5)) == (NotConnected, TOO_SLOW, None)
        assert vhost.count(QUEUE) == (51 if direction == "to_client" else 1)

        proxy.heal()
        proxy.reset()
        wait_until(lambda: client.can_send(first), 10)
        assert vhost.ids(QUEUE).count(first.id) == (2 if direction == "to_client" else 1)


def test_a_connection_that_is_lost_leaves_no_doubt_about_what_was_confirmed(
    make_app: MakeApp, make_client: MakeClient, vhost: Broker
) -> None:
    with Proxy(vhost.url) as proxy:
        client = make_client(make_app(proxy.url, resend=False))
        echo = echo_of(client.app)
        result_of(client.send(echo.message("before")))
        proxy.swallow("to_client")
        message = echo.message("x")
        sending = client.send(message)
        vhost.wait_for_count(QUEUE, 2)
        proxy.reset()
        proxy.heal()
        host = host_of(proxy.url)
        text = f"{UNKNOWN}The connection to {host} was lost: [Errno 104] Connection reset by peer."
        assert failure_of(sending) == (Unconfirmed, text, message)
        for after in (10, 50_001):
            wait_until(lambda: client.can_send(echo.message("healthy again")), 10)
            proxy.reset_after(after, "to_broker")
            before = set(vhost.ids(QUEUE))
            outcomes = result_of(client.send_each(messages(echo, 300, "y" * 500)))
            assert any(isinstance(one, Unconfirmed) for one in outcomes)
            confirmed = {one.id for one in outcomes if isinstance(one, Sent)}
            assert confirmed <= set(vhost.ids(QUEUE)) - before


def test_what_is_not_confirmed_names_the_reason_of_an_administrator_who_closes_the_connection(
    make_app: MakeApp, make_client: MakeClient, vhost: Broker
) -> None:
    with Proxy(vhost.url) as proxy:
        client = make_client(make_app(proxy.url, send_timeout=20.0, resend=False))
        echo = echo_of(client.app)
        result_of(client.send(echo.message("before")))
        calling = client.call(echo.message("x"), 20)
        wait_until(lambda: client.publisher().calls.is_idle and client.waiting_calls() == 1, what="it is confirmed")
        (connection,) = wait_until(lambda: vhost.management.connections(vhost.vhost), what="its connection is listed")
        passed = proxy.passed["to_broker"]
        proxy.limit("to_broker", 10_000)
        message = echo.message("y" * 200_000)
        sending = client.send(message)
        wait_until(lambda: proxy.passed["to_broker"] > passed, what="a part of it has arrived")
        vhost.management.close_connection(connection["name"])
        proxy.heal()
        text = "The connection was lost while waiting for a reply: the task may have run."
        assert failure_of(calling)[:2] == (Unconfirmed, text)
        reason = "CONNECTION_FORCED - Closed via management plugin (320)."
        text = f"{UNKNOWN}RabbitMQ at {host_of(proxy.url)} closed the connection: {reason}"
        assert failure_of(sending) == (Unconfirmed, text, message)
        wait_until(lambda: client.can_send(echo.message("y")), 10)


def test_an_alarm_blocks_in_time_and_sending_works_again_after_it(
    make_app: MakeApp, make_client: MakeClient, spare_node: Node
) -> None:
    client = make_client(make_app(spare_node.url(), send_timeout=0.7))
    echo = echo_of(client.app, "alarmed")
    result_of(client.send(echo.message("before")))
    with spare_node.alarm():
        first, second, third, *batch = messages(echo, 13)
        assert failure_of(client.send(first)) == (ConnectionBlocked, ALARM_LATER, first)
        assert failure_of(client.send(second)) == (ConnectionBlocked, ALARM, second)
        assert failure_of(client.call(third, 0.7)) == (ConnectionBlocked, ALARM, third)
        assert failure_of(client.check(0.5)) == (ConnectionBlocked, ALARM, None)
        error = client.send_many(batch).exception(PATIENCE)
        assert isinstance(error, BatchFailed)
        assert [seen(one) for one in error.exceptions] == [(ConnectionBlocked, ALARM, message) for message in batch]
    wait_until(lambda: client.can_send(second), 10, "sending works again")
    # what had been written when the alarm came arrives, what had not does not
    ids = Counter(Broker(spare_node, "/").ids("alarmed"))
    assert (ids[first.id], ids[second.id], ids[third.id]) == (1, 1, 0)
    spare_node.management.delete_queue("/", "alarmed")
