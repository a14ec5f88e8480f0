"""`check` and `acheck`: whether messages could be sent now, and why not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from amqpworker import AccessRefused, App, ConnectionBlocked, InvalidArguments, NotConnected
from amqpworker.testing import Node
from tests.proxy import Proxy
from tests.support import Broker

MakeApp = Callable[..., App]
Check = Callable[[App, float], None]


async def entered(app: App, timeout: float) -> None:
    async with app:
        await app.acheck(timeout)


def by_thread(app: App, timeout: float) -> None:
    app.check(timeout)


def in_a_loop(app: App, timeout: float) -> None:
    asyncio.run(app.acheck(timeout))


def in_a_loop_that_has_entered(app: App, timeout: float) -> None:
    asyncio.run(entered(app, timeout))


@pytest.fixture(params=[by_thread, in_a_loop, in_a_loop_that_has_entered], ids=lambda one: one.__name__)
def check(request: pytest.FixtureRequest) -> Check:
    function: Check = request.param
    return function


def test_an_app_that_can_send_is_ready_however_often_it_is_asked(check: Check, app: App, vhost: Broker) -> None:
    for _ in range(3):
        check(app, 5)
    assert all(vhost.count(queue) == 0 for queue in vhost.queues())


def test_a_broker_that_is_away_is_not_connected(check: Check, make_app: MakeApp) -> None:
    with pytest.raises(NotConnected, match="Could not connect"):
        check(make_app("amqp://127.0.0.1:1"), 0.5)


def test_a_broker_that_does_not_respond_is_not_connected(check: Check, make_app: MakeApp, vhost: Broker) -> None:
    with Proxy(vhost.url) as proxy:
        app = make_app(proxy.url)
        app.check(5)
        proxy.swallow("to_client")
        with pytest.raises(NotConnected):
            check(app, 0.5)
        proxy.heal()
        proxy.reset()


def test_a_user_who_may_not_write_is_refused(check: Check, make_app: MakeApp, vhost: Broker, app: App) -> None:
    app.check(5)
    vhost.management.create_user("reader", "secret")
    vhost.management.set_permissions(vhost.vhost, "reader", write="^$")
    with pytest.raises(AccessRefused, match="write"):
        check(make_app(vhost.node.url(vhost.vhost, "reader", "secret"), declare=False), 5)
    vhost.management.delete_user("reader")


def test_an_alarm_is_blocked(check: Check, make_app: MakeApp, spare_node: Node) -> None:
    app = make_app(spare_node.url())
    check(app, 5)
    spare_node.rabbitmqctl("set_vm_memory_high_watermark", "0")
    try:
        with pytest.raises(ConnectionBlocked):
            check(app, 1)
    finally:
        spare_node.rabbitmqctl("set_vm_memory_high_watermark", "0.4")


def test_a_timeout_that_is_not_a_duration_is_refused(check: Check, app: App) -> None:
    with pytest.raises(InvalidArguments, match="timeout"):
        check(app, "soon")  # type: ignore[arg-type]
