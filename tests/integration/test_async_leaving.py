"""Leaving the app in an event loop, or dropping the loop: what others do there is not lost, and nothing is kept."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable

import pytest

from amqpworker import App, NotConnected
from tests.integration.tasks import QUEUE, echo_of
from tests.proxy import Proxy
from tests.support import Broker
from tests.workers import running

MakeApp = Callable[..., App]


@pytest.mark.parametrize("how", ["__aexit__", "aclose"])
def test_who_is_cancelled_while_leaving_ends_no_message_of_others(app: App, vhost: Broker, how: str) -> None:
    echo = echo_of(app)

    async def run() -> None:
        await app.__aenter__()
        await echo.asend("before")
        sending = [asyncio.create_task(echo.asend("x")) for _ in range(200)]
        await asyncio.sleep(0)
        leaving = asyncio.create_task(app.__aexit__() if how == "__aexit__" else app.aclose())
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.gather(*sending)
        with pytest.raises(asyncio.CancelledError):
            await leaving

    asyncio.run(run())
    assert vhost.count(QUEUE) == 201


def test_who_is_cancelled_while_leaving_ends_no_call_of_others(app: App, make_app: MakeApp) -> None:
    echo = echo_of(app)
    go = threading.Event()
    server = make_app()

    @server.task(name="test.echo", queue=QUEUE)
    def answer(text: str) -> str:
        go.wait(20)
        return text

    async def run() -> None:
        await app.__aenter__()
        calling = asyncio.create_task(echo.acall("x"))
        await asyncio.sleep(0)
        leaving = asyncio.create_task(app.__aexit__())
        await asyncio.sleep(0)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        go.set()
        assert await calling == "x"

    with running(server):
        asyncio.run(run())


def test_who_is_cancelled_while_entering_does_not_wait_for_the_messages_of_others(
    make_app: MakeApp, vhost: Broker
) -> None:
    with Proxy(vhost.url) as proxy:
        proxy.swallow("to_client")
        app = make_app(proxy.url, send_timeout=5.0)
        echo = echo_of(app)

        async def run() -> None:
            entering = asyncio.create_task(app.__aenter__())
            await asyncio.sleep(0)
            sending = asyncio.create_task(echo.asend("x"))
            await asyncio.sleep(0)
            entering.cancel()
            with pytest.raises(asyncio.CancelledError):
                await entering
            assert not sending.done()
            with pytest.raises(NotConnected):
                await sending

        asyncio.run(run())


def test_a_loop_that_is_closed_inside_the_app_is_not_kept(app: App) -> None:
    echo = echo_of(app)
    loops = []

    async def enter() -> None:
        await app.__aenter__()
        await echo.asend("x")

    async def end() -> None:
        # What asyncio.run would do: else each of aio-pika's tasks complains.
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    for _ in range(3):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(enter())
        loop.run_until_complete(end())
        loop.close()
        loops.append(weakref.ref(loop))
        del loop
    app.close()
    gc.collect()
    assert [reference() for reference in loops] == [None] * 3


def test_a_loop_may_run_in_another_thread_than_the_one_that_entered(app: App, vhost: Broker) -> None:
    echo = echo_of(app)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(app.__aenter__())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(echo.asend("x"), loop).result(20)
    asyncio.run_coroutine_threadsafe(app.__aexit__(), loop).result(20)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(20)
    assert not asyncio.all_tasks(loop)
    loop.close()
    assert vhost.count(QUEUE) == 1


FORK = """
import asyncio, os, sys
from amqpworker import App

app = App(sys.argv[1])

async def run() -> None:
    async with app:
        child = os.fork()
        if child == 0:
            sys.exit(7)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

asyncio.run(run())
"""


def test_a_forked_child_that_ends_inside_the_app_has_the_exit_code_that_it_chose(vhost: Broker) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", FORK, vhost.url], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.stdout == "7\n", ended.stderr
