"""Coroutines whose broker is restarted, killed or silent, or whose loop is blocked: no error where sending again helps."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest

from amqpworker import App, SendError, Settings, Unconfirmed
from tests.faults.conftest import Run
from tests.faults.test_resending import ids_of
from tests.integration.tasks import QUEUE, echo_of
from tests.proxy import Proxy
from tests.support import Broker, wait_until

MakeApp = Callable[..., App]


@pytest.mark.parametrize("how", ["restarted", "killed"])
def test_a_broker_that_is_restarted_under_many_coroutines_fails_no_send(
    run: Run, spare_vhost: Broker, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    node = spare_vhost.node
    app = App(spare_vhost.url, settings=Settings(app_id="shop"))
    echo = echo_of(app)
    sent: list[str] = []
    stop = False

    async def send_until_stopped() -> None:
        while not stop:
            sent.append((await echo.asend("x")).id)

    async def restart() -> None:
        nonlocal stop
        await asyncio.to_thread(wait_until, lambda: len(sent) > 200, 30, "messages are sent")
        await asyncio.to_thread(node.stop if how == "restarted" else node.kill)
        before = len(sent)
        await asyncio.to_thread(node.start)
        await asyncio.to_thread(wait_until, lambda: len(sent) > before + 200, 30, "messages are sent again")
        stop = True

    async def all_of_it() -> None:
        await asyncio.gather(restart(), *(send_until_stopped() for _ in range(20)))

    sent.append(echo.send("makes the queue").id)
    # RabbitMQ 3.10 loses a queue that was declared some seconds before it is killed, and never reports it.
    node.save_queues()
    with caplog.at_level(logging.INFO):
        run(app, all_of_it())
    app.close()
    assert set(sent) <= set(ids_of(spare_vhost))
    assert {record.name.partition(".")[0] for record in caplog.records} <= {"amqpworker", "asyncio"}


def test_a_loop_that_was_blocked_for_longer_than_its_heartbeats_sends_again_and_loses_nothing(
    run: Run, make_app: MakeApp, vhost: Broker
) -> None:
    app = make_app(heartbeat=1, send_timeout=20.0)
    echo = echo_of(app)

    async def block() -> set[str]:
        await echo.asend("before")
        sending = [asyncio.create_task(echo.asend("x")) for _ in range(50)]
        await asyncio.sleep(0)
        time.sleep(6)
        sending += [asyncio.create_task(echo.asend("x")) for _ in range(50)]
        return {(await one).id for one in sending}

    ids = run(app, block())
    assert len(ids) == 100
    assert ids <= set(vhost.ids(QUEUE))


def test_a_confirm_that_is_lost_with_the_connection_is_sent_again_or_unknown(
    run: Run, make_app: MakeApp, vhost: Broker
) -> None:
    with Proxy(vhost.url) as proxy:
        app = make_app(proxy.url, send_timeout=20.0)
        echo = echo_of(app)

        async def lose() -> tuple[Any, Any]:
            await echo.asend("before")
            proxy.swallow("to_client")
            again = asyncio.create_task(echo.asend("during"))
            once = asyncio.create_task(echo.options(resend=False).asend("during"))
            await asyncio.to_thread(wait_until, lambda: vhost.count(QUEUE) == 3, 10, "both have arrived")
            proxy.heal()
            proxy.reset()
            return await asyncio.gather(again, once, return_exceptions=True)

        again, once = run(app, lose())
        assert not isinstance(again, SendError)
        assert isinstance(once, Unconfirmed)
        wait_until(lambda: vhost.count(QUEUE) == 4, what="it arrives again")
        assert ids_of(vhost)[again.id] == 2


def test_a_broker_that_is_silent_is_left_and_the_message_arrives_later(
    run: Run, make_app: MakeApp, vhost: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    with Proxy(vhost.url) as proxy:
        app = make_app(proxy.url, send_timeout=30.0, connect_timeout=2.0)
        echo = echo_of(app)

        async def fall_silent() -> None:
            await echo.asend("before")
            proxy.swallow("to_client")
            proxy.swallow("to_broker")
            sending = asyncio.create_task(echo.asend("during"))
            await asyncio.to_thread(wait_until, lambda: "broker_unresponsive" in caplog.text, 20)
            proxy.heal()
            await sending

        run(app, fall_silent())
        assert proxy.accepted >= 2
    assert sorted(ids_of(vhost).values()) == [1, 1]
