"""Event loops that end in unusual ways, with sends and calls under way: nothing hangs, and nothing is complained about."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

import pytest

from amqpworker import App, SendError
from tests.clients import PATIENCE
from tests.faults.conftest import Run
from tests.integration.tasks import QUEUE, echo_of
from tests.nodes import Node
from tests.support import Broker, wait_until

MakeApp = Callable[..., App]

PROGRAM = """
import asyncio, os, signal, sys
from amqpworker import AmqpWorkerError, App, Settings

url, end, entered = sys.argv[1], sys.argv[2], sys.argv[3] == "entered"
app = App(url, settings=Settings(send_timeout=3.0))

@app.remote(name="test.echo", queue="work")
def echo(text: str) -> str: ...

async def source():
    while True:
        await asyncio.sleep(0)
        yield echo.message("x")

async def send():
    while True:
        await echo.asend("x")

async def call():
    try:
        await echo.options(timeout=0.5).acall("x")
    except AmqpWorkerError:
        pass

async def work():
    tasks = [asyncio.create_task(send()) for _ in range(20)]
    tasks += [asyncio.create_task(call()) for _ in range(10)]
    tasks += [asyncio.create_task(app.asend_many(source())) for _ in range(2)]
    await asyncio.sleep(0.3)
    if end == "raises":
        raise LookupError("on purpose")
    if end == "is interrupted":
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(10)
    if end == "leaves an iterator":
        async for outcome in app.asend_each(source()):
            break
    if end == "cancels":
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if end == "closes the app":
        app.close()
    if end == "closes its connection":
        await app.aclose()
    if end == "exits":
        sys.exit(0)

async def main():
    if not entered:
        return await work()
    async with app:
        await work()

try:
    asyncio.run(main())
except (LookupError, KeyboardInterrupt):
    pass
"""

ENDS = (
    "returns",
    "raises",
    "is interrupted",
    "leaves an iterator",
    "cancels",
    "closes the app",
    "closes its connection",
    "exits",
)


def run_program(code: str, *arguments: str, warnings: str = "error") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", warnings, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env={**os.environ, "PYTHONASYNCIODEBUG": "1"},
    )


def test_a_program_that_ends_under_load_in_any_way_leaves_no_complaint(vhost: Broker) -> None:
    def end(way: tuple[str, str]) -> tuple[tuple[str, str], int, list[str]]:
        ended = run_program(PROGRAM, vhost.url, *way)
        # asyncio's debug mode reports what is slow, as it is on a machine with much to do.
        lines = [line for line in ended.stderr.splitlines() if not line.startswith("Executing <")]
        return way, ended.returncode, lines

    ways = list(product(ENDS, ("entered", "not")))
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(end, ways)) == [(way, 0, []) for way in ways]


CLOSED = """
import asyncio, gc, sys
from amqpworker import App

app = App(sys.argv[1])

@app.remote(name="test.echo", queue="work")
def echo(text: str) -> str: ...

loop = asyncio.new_event_loop()
if sys.argv[2] == "entered":
    loop.run_until_complete(app.__aenter__())
loop.run_until_complete(echo.asend("x"))
tasks = [loop.create_task(echo.asend("under way")) for _ in range(20)]
tasks.append(loop.create_task(echo.acall("under way")))
loop.run_until_complete(asyncio.sleep(0))
loop.close()

async def enter():
    async with app:
        await echo.asend("z")

asyncio.run(echo.asend("y"))
asyncio.run(enter())
echo.send("z")
app.close()
del loop, tasks
gc.collect()
print("ended")
"""


@pytest.mark.parametrize("entered", ["entered", "not"])
def test_a_loop_that_is_closed_under_its_sends_affects_no_other_loop(vhost: Broker, entered: str) -> None:
    ended = run_program(CLOSED, vhost.url, entered, warnings="default")
    assert (ended.returncode, ended.stdout) == (0, "ended\n")
    # asyncio complains about each task of a loop that is closed; there is nothing of ours beside that.
    for text in ("io_", "never awaited", "never retrieved", "amqpworker."):
        assert text not in ended.stderr, ended.stderr
    assert vhost.count(QUEUE) >= 4


def test_eight_loops_that_send_while_the_app_is_closed_in_another_thread_lose_nothing(
    make_app: MakeApp, vhost: Broker
) -> None:
    app = make_app(send_timeout=20.0)
    echo = echo_of(app)
    stop = threading.Event()
    sent: list[str] = []

    async def send() -> None:
        while not stop.is_set():
            sent.append((await echo.asend("x")).id)

    async def run_loop() -> None:
        async with app:
            await asyncio.gather(*(send() for _ in range(10)))

    with ThreadPoolExecutor(8) as threads:
        running = [threads.submit(asyncio.run, run_loop()) for _ in range(8)]
        try:
            for _ in range(3):
                before = len(sent)
                wait_until(lambda: len(sent) > before + 500, 30)  # noqa: B023 - it is called in this turn
                app.close()
        finally:
            stop.set()
        for done in running:
            done.result(PATIENCE)
    assert set(sent) <= set(vhost.ids(QUEUE))


def test_closing_is_bounded_under_an_alarm(run: Run, make_app: MakeApp, spare_node: Node) -> None:
    app = make_app(spare_node.url(), send_timeout=1.0)
    echo = echo_of(app)

    async def close(how: str) -> list[Any]:
        sending = [asyncio.create_task(echo.asend("x")) for _ in range(20)]
        await asyncio.sleep(0)
        async with asyncio.timeout(20):
            await (app.aclose() if how == "aclose" else asyncio.to_thread(app.close))
        return await asyncio.gather(*sending, return_exceptions=True)

    async def close_under_alarm() -> list[Any]:
        await echo.asend("before")
        with spare_node.alarm():
            return [*await close("aclose"), *await close("close")]

    assert all(isinstance(one, SendError) for one in run(app, close_under_alarm()))


def test_a_call_that_no_worker_serves_and_an_alarm_do_not_keep_a_loop_inside(
    make_app: MakeApp, spare_node: Node
) -> None:
    app = make_app(spare_node.url(), send_timeout=1.0)
    echo = echo_of(app)

    async def enter() -> list[Any]:
        with spare_node.alarm():
            async with asyncio.timeout(20):
                async with app:
                    tasks = [
                        asyncio.create_task(echo.options(timeout=1).acall("x")),
                        asyncio.create_task(echo.asend("x")),
                    ]
                    await asyncio.sleep(0)
                return await asyncio.gather(*tasks, return_exceptions=True)

    assert all(isinstance(one, SendError) for one in asyncio.run(enter()))
