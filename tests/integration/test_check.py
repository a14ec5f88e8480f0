"""`check` and `acheck`: whether messages could be sent now. Why not is in the contract of the errors of sending."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amqpworker import App, ConnectionBlocked, InvalidArguments, NotConnected
from amqpworker.testing import Node
from tests.clients import Client, failure_of, result_of
from tests.proxy import Proxy
from tests.support import Broker

MakeApp = Callable[..., App]
MakeClient = Callable[[App], Client]


def test_an_app_that_can_send_is_ready_however_often_it_is_asked(client: Client, vhost: Broker) -> None:
    for _ in range(3):
        result_of(client.check())
    assert all(vhost.count(queue) == 0 for queue in vhost.queues())


def test_a_timeout_that_is_not_a_duration_is_refused(client: Client) -> None:
    soon: Any = "soon"
    text = "timeout='soon': a duration is a number of seconds or a timedelta."
    assert failure_of(client.check(soon)) == (InvalidArguments, text, None)


def test_a_broker_that_does_not_respond_any_more_is_not_connected(
    make_app: MakeApp, make_client: MakeClient, vhost: Broker
) -> None:
    with Proxy(vhost.url) as proxy:
        client = make_client(make_app(proxy.url))
        result_of(client.check())
        proxy.swallow("to_client")
        assert failure_of(client.check(0.5)) == (NotConnected, "RabbitMQ did not respond within 0.5 s.", None)
        proxy.heal()
        proxy.reset()


def test_an_alarm_after_which_nothing_was_sent_yet_is_blocked(
    make_app: MakeApp, make_client: MakeClient, spare_node: Node
) -> None:
    client = make_client(make_app(spare_node.url()))
    result_of(client.check())
    with spare_node.alarm():
        assert failure_of(client.check(1.0))[0] is ConnectionBlocked
