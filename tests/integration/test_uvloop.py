"""Event loops of uvloop: sends, calls, cancels, a lost connection, an alarm and a fork, as in loops of asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from amqpworker import App, ConnectionBlocked, Unroutable
from amqpworker.testing import running_worker
from tests.integration.tasks import QUEUE, another_of, echo_of, messages
from tests.leftovers import publisher_of, wait_until_nothing_is_left
from tests.nodes import Node
from tests.proxy import Proxy
from tests.support import Broker, in_child, wait_until

MakeApp = Callable[..., App]
Run = Callable[[App, Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=["by the thread", "by aio-pika"])
def run(request: pytest.FixtureRequest) -> Run:
    """Run a coroutine in a loop of uvloop that has entered the app, or that has not; nothing may be left in its tables."""

    async def check(app: App, coroutine: Coroutine[Any, Any, Any]) -> Any:
        result = await coroutine
        await asyncio.to_thread(wait_until_nothing_is_left, publisher_of(app))
        return result

    async def enter(app: App, coroutine: Coroutine[Any, Any, Any]) -> Any:
        async with app:
            return await check(app, coroutine)

    def run(app: App, coroutine: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(enter(app, coroutine) if request.param == "by aio-pika" else check(app, coroutine))

    return run


def test_sends_calls_and_batches_end_with_their_own_outcomes(
    run: Run, app: App, make_app: MakeApp, vhost: Broker
) -> None:
    echo, other = echo_of(app), another_of(app, "other")
    worker = make_app()
    worker.task(name="test.echo", queue=QUEUE, retry=None)(lambda text: text)

    async def work() -> list[Any]:
        sent = await other.asend()
        assert (await app.asend(other.message())).task == sent.task
        assert await asyncio.gather(*(echo.acall(str(number)) for number in range(200))) == [*map(str, range(200))]
        batch = [one for _ in range(500) for one in (other.message(), other.options(queue="nowhere").message())]
        outcomes = [type(one) is Unroutable async for one in app.asend_each(batch)]
        await app.acheck()
        return outcomes

    with running_worker(worker, threads=4):
        assert run(app, work()) == [False, True] * 500
    assert vhost.count("other") == 502


def test_cancelled_sends_leave_nothing_and_later_ones_work(run: Run, app: App, vhost: Broker) -> None:
    echo = echo_of(app)

    async def cancel() -> None:
        await echo.asend("x")
        for number in range(60):
            tasks = [asyncio.create_task(echo.options(queue=queue).asend("x")) for queue in (QUEUE, "nowhere") * 5]
            tasks.append(asyncio.create_task(app.asend_many(messages(echo, 50))))
            tasks.append(asyncio.create_task(echo.options(timeout=5).acall("x")))
            await asyncio.sleep(0.0005 * (number % 10))
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert (await echo.asend("x")).task == "test.echo"

    run(app, cancel())


def test_a_lost_connection_loses_no_message(run: Run, make_app: MakeApp, vhost: Broker) -> None:
    with Proxy(vhost.url) as proxy:
        app = make_app(proxy.url, send_timeout=20.0)
        echo = echo_of(app)

        async def lose() -> set[str]:
            await echo.asend("x")
            ids = set()
            for how in (proxy.reset, lambda: proxy.reset_after(3000, "to_broker"), vhost.close_connections):
                tasks = [asyncio.create_task(echo.asend("x")) for _ in range(50)]
                await asyncio.to_thread(how)
                ids |= {(await task).id for task in tasks}
            return ids

        ids = run(app, lose())
    assert len(ids) == 150
    assert ids <= set(vhost.ids(QUEUE))


def test_an_alarm_blocks_each_send_in_time(run: Run, make_app: MakeApp, spare_node: Node) -> None:
    app = make_app(spare_node.url(), send_timeout=1.0)
    echo = echo_of(app, "alarmed")

    async def send() -> list[Any]:
        await echo.asend("x")
        with spare_node.alarm():
            return await asyncio.gather(*(echo.asend("x" * 1000) for _ in range(50)), return_exceptions=True)

    assert {type(one) for one in run(app, send())} == {ConnectionBlocked}


def test_a_forked_child_sends_in_any_loop(run: Run, app: App, vhost: Broker) -> None:
    echo = echo_of(app)

    async def enter_and_send() -> None:
        async with app:
            await echo.asend("by aio-pika")

    def send_in_child() -> bool:
        asyncio.run(echo.asend("by asyncio"))
        asyncio.run(enter_and_send())
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(echo.asend("by uvloop"))
        echo.send("by the thread")
        app.close()
        return True

    async def fork() -> None:
        await echo.asend("before")
        assert in_child(send_in_child)
        await echo.asend("after")

    run(app, fork())
    wait_until(lambda: vhost.count(QUEUE) == 6)
