"""An event loop that has entered the app: a connection of its own, from the first that enters until the last that leaves."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from amqpworker import AccessRefused, App, CallTimeout, ConfigError, NotConnected, SendError
from amqpworker.broker.aio_connection import AioConnection
from tests.integration.tasks import QUEUE, echo_of
from tests.leftovers import publisher_of
from tests.proxy import Proxy
from tests.support import Broker, in_child, wait_until

MakeApp = Callable[..., App]


def platforms(vhost: Broker) -> list[str]:
    """Return the libraries of the connections to the virtual host."""
    found = [one.get("client_properties") or {} for one in vhost.management.connections(vhost.vhost)]
    return [str(one["platform"]).rpartition(", ")[2].split()[0] for one in found if "platform" in one]


def test_its_messages_go_over_a_connection_of_aio_pika_that_ends_with_the_last_that_leaves(
    app: App, vhost: Broker
) -> None:
    echo = echo_of(app)

    async def run() -> None:
        async with app:
            async with app:
                await echo.asend("x")
            await echo.asend("x")
            await asyncio.to_thread(wait_until, lambda: platforms(vhost) == ["aio-pika"])
        await asyncio.to_thread(wait_until, lambda: platforms(vhost) == [])
        await echo.asend("x")
        await asyncio.to_thread(wait_until, lambda: platforms(vhost) == ["pika"])

    asyncio.run(run())
    vhost.wait_for_count(QUEUE, 3)


def test_aclose_ends_the_connection_of_the_loop_and_later_messages_go_by_the_thread(app: App, vhost: Broker) -> None:
    echo = echo_of(app)

    async def run() -> None:
        async with app:
            await echo.asend("x")
            await app.aclose()
            await echo.asend("x")
            await asyncio.to_thread(wait_until, lambda: platforms(vhost) == ["pika"])

    asyncio.run(run())
    vhost.wait_for_count(QUEUE, 2)


@pytest.mark.parametrize("change", [("guest:guest", "guest:wrong"), ("/test", "/nowhere")])
def test_a_login_or_virtual_host_that_can_never_work_is_refused_on_entering(
    make_app: MakeApp, vhost: Broker, change: tuple[str, str]
) -> None:
    app = make_app(vhost.url.replace(*change))

    async def run() -> None:
        async with app:
            raise AssertionError("it was entered")

    with pytest.raises(AccessRefused) as refused:
        asyncio.run(run())
    assert "wrong" not in str(refused.value)


def test_entering_does_not_wait_for_a_broker_that_never_answers(make_app: MakeApp) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        app = make_app(f"amqp://127.0.0.1:{silent.getsockname()[1]}", send_timeout=0.5, connect_timeout=60.0)
        echo = echo_of(app)

        async def run() -> None:
            async with asyncio.timeout(20), app:
                with pytest.raises(NotConnected):
                    await echo.asend("x")

        asyncio.run(run())


def test_eight_loops_in_eight_threads_have_a_connection_each(app: App, vhost: Broker) -> None:
    echo = echo_of(app)

    async def run() -> None:
        async with app:
            await asyncio.gather(*(echo.asend("x") for _ in range(100)))
            await asyncio.to_thread(all_connected.wait, 30)

    all_connected = threading.Event()
    with ThreadPoolExecutor(8) as threads:
        running = [threads.submit(asyncio.run, run()) for _ in range(8)]
        try:
            wait_until(lambda: platforms(vhost) == ["aio-pika"] * 8, 20)
        finally:
            all_connected.set()
        for done in running:
            done.result(60)
    vhost.wait_for_count(QUEUE, 800)


def test_messages_that_wait_when_the_app_is_closed_in_another_thread_are_still_confirmed(
    app: App, vhost: Broker
) -> None:
    echo = echo_of(app)

    async def run() -> int:
        async with app:
            sending = [asyncio.create_task(echo.asend("x")) for _ in range(200)]
            await asyncio.sleep(0)
            await asyncio.to_thread(app.close)
            outcomes = await asyncio.gather(*sending, return_exceptions=True)
            return sum(1 for one in outcomes if not isinstance(one, BaseException))

    assert asyncio.run(run()) == 200
    vhost.wait_for_count(QUEUE, 200)


def test_without_a_loop_of_asyncio_the_error_names_the_reason(app: App) -> None:
    with pytest.raises(ConfigError, match="No event loop of asyncio runs here"):
        echo_of(app).asend("x").send(None)


def test_a_forked_child_drops_the_connection_and_sends_by_a_thread_of_its_own(app: App, vhost: Broker) -> None:
    echo = echo_of(app)

    async def run() -> bool:
        async with app:
            await echo.asend("x")
            connection = publisher_of(app).session.connection
            assert isinstance(connection, AioConnection)

            def sends_alone() -> bool:
                assert os.readlink(f"/proc/self/fd/{connection._socket.fileno()}") == os.devnull
                asyncio._set_running_loop(None)
                asyncio.run(echo.asend("y"))
                app.close()
                return True

            right = in_child(sends_alone)
            await echo.asend("z")
            return right

    assert asyncio.run(run())
    vhost.wait_for_count(QUEUE, 3)


def test_a_cancelled_leave_still_closes_the_connection(app: App, vhost: Broker) -> None:
    echo = echo_of(app)

    async def run() -> None:
        with Proxy(vhost.url) as proxy:
            other = App(proxy.url, settings=app.settings)
            silent = echo_of(other)
            await other.__aenter__()
            await silent.asend("before")
            proxy.swallow("to_client")
            waiting = asyncio.create_task(silent.asend("during"))
            publisher = publisher_of(other)
            await asyncio.to_thread(wait_until, lambda: not publisher.is_idle)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await other.aclose()
            with pytest.raises(SendError):
                await waiting
            await asyncio.to_thread(wait_until, lambda: platforms(vhost) == [], 20)
        await echo.asend("after")

    asyncio.run(run())


def test_a_program_that_cancels_all_tasks_sends_by_the_thread_from_then_on(app: App, vhost: Broker) -> None:
    echo = echo_of(app)

    async def run() -> None:
        async with app:
            await echo.asend("x")
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await asyncio.sleep(0)
            await echo.asend("y")

    asyncio.run(run())
    vhost.wait_for_count(QUEUE, 2)


def test_a_thread_that_leaves_the_app_ends_no_call_of_a_loop_that_is_inside(app: App) -> None:
    echo = echo_of(app)

    def use() -> None:
        with app:
            echo.send("x")

    async def run() -> None:
        async with app:
            calling = asyncio.create_task(echo.options(timeout=2).acall("asked"))
            publisher = publisher_of(app)
            await asyncio.to_thread(wait_until, lambda: len(publisher.session.calls) == 1)
            await asyncio.to_thread(use)
            with pytest.raises(CallTimeout):
                await calling

    asyncio.run(run())


def test_two_loops_in_turn_in_one_thread_keep_a_connection_each(app: App, vhost: Broker) -> None:
    echo = echo_of(app)
    with asyncio.Runner() as one, asyncio.Runner() as another:
        for runner in (one, another):
            runner.run(app.__aenter__())
            runner.run(echo.asend("x"))
        one.run(echo.asend("x"))
        wait_until(lambda: platforms(vhost) == ["aio-pika"] * 2)
        for runner in (one, another):
            runner.run(app.__aexit__())
    wait_until(lambda: platforms(vhost) == [])


def test_the_connection_of_those_who_enter_after_aclose_is_not_closed_by_those_before(app: App, vhost: Broker) -> None:
    echo = echo_of(app)

    async def run() -> None:
        async with app:
            await app.aclose()
            await app.__aenter__()
        await echo.asend("x")
        await asyncio.to_thread(wait_until, lambda: platforms(vhost) == ["aio-pika"])
        await app.__aexit__()

    asyncio.run(run())


@pytest.mark.parametrize(
    "banner", [b"220 mail.example ESMTP\r\n", b"AMQP\x00\x01\x00\x00", b"HTTP/1.1 400 Bad\r\n\r\n"]
)
def test_another_server_is_refused_on_entering(make_app: MakeApp, banner: bytes) -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(banner)
        await writer.drain()
        writer.close()

    async def run() -> None:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            app = make_app(f"amqp://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            with pytest.raises(ConfigError, match="does not speak AMQP"):
                await app.__aenter__()

    asyncio.run(run())


def test_one_reset_during_a_handshake_is_not_the_end(make_app: MakeApp, vhost: Broker) -> None:
    with Proxy(vhost.url) as proxy:
        app = make_app(proxy.url)
        echo = echo_of(app)

        async def run() -> None:
            async with app:
                await echo.asend("before")
                accepted = proxy.accepted
                proxy.reset_after(0, "to_client")
                proxy.reset()
                await asyncio.to_thread(wait_until, lambda: proxy.accepted == accepted + 2)
                await echo.asend("after")

        asyncio.run(run())


PROGRAM = """
import asyncio, sys
from amqpworker import App

app = App(sys.argv[1])

@app.remote(name="test.echo", queue="work")
def echo(text: str) -> str: ...

async def run():
    async with app:
        await asyncio.gather(*(echo.asend("x") for _ in range(50)))
        left = [asyncio.create_task(echo.asend("y")) for _ in range(50)]
        await asyncio.sleep(0)
        for task in left:
            task.cancel()

asyncio.run(run(), debug=True)
asyncio.run(echo.asend("x"))
"""


def test_a_program_that_ends_leaves_no_complaint_of_asyncio(vhost: Broker) -> None:
    ended = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", PROGRAM, vhost.url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    lines = [line for line in ended.stderr.splitlines() if not line.startswith("Executing <")]
    assert (ended.returncode, lines) == (0, [])


def test_a_loop_ends_although_the_cancel_of_an_attempt_to_connect_is_swallowed(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    connecting = threading.Event()

    async def connect(_: AioConnection, __: str) -> None:
        connecting.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ConnectionError("as a library may make it") from None

    async def run() -> None:
        await app.__aenter__()
        keeper = publisher_of(app).keeper
        monkeypatch.setattr(AioConnection, "connect", connect)
        keeper.drop("a test")
        assert await asyncio.to_thread(connecting.wait, 10)

    asyncio.run(run())
