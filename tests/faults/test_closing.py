"""Closing an app: by the last who uses it, never under a worker or another thread, and by itself."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from amqpworker import App, Settings
from tests.integration.tasks import QUEUE, echo_of, messages
from tests.support import Broker, wait_until
from tests.workers import running

MakeApp = Callable[..., App]


@pytest.fixture
def app(make_app: MakeApp) -> App:
    return make_app()


def publishers() -> list[threading.Thread]:
    """Return the threads that keep a connection of a publisher."""
    return [thread for thread in threading.enumerate() if thread.name == "amqpworker-publisher"]


@pytest.fixture(autouse=True)
def connections() -> Callable[[], int]:
    """Count the connections that are more than at the test's beginning."""
    before = publishers()
    return lambda: len([thread for thread in publishers() if thread not in before])


Count = Callable[[], int]


# ---- inside a worker -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["with", "close"])
def test_a_task_that_closes_the_app_leaves_its_worker_what_it_needs(
    how: str, make_app: MakeApp, vhost: Broker, connections: Count
) -> None:
    server = make_app(results=None)
    runs: list[str] = []

    @server.task(name="test.closes", queue=QUEUE, retry=[0, 0])
    def closes(text: str) -> str:
        runs.append(text)
        if how == "with":
            with server:
                other.send(text)
        else:
            other.send(text)
            server.close()
        if text == "fails":
            raise LookupError(text)
        return text

    @server.remote(name="test.other", queue="elsewhere")
    def other(text: str) -> str: ...

    caller = echo_of(make_app())

    @server.task(name="test.echo", queue=QUEUE)
    def echo(text: str) -> str:
        return text

    with running(server, threads=2) as worker:
        closes.send("fails")
        vhost.wait_for_count(f"{QUEUE}.dead", 1)
        assert runs == ["fails"] * 3
        assert caller.call("answered") == "answered"
        assert closes.options(timeout=5).call("done") == "done"
        assert vhost.count("elsewhere") == 4
        assert worker.process.publisher.connected
    assert connections() == 1  # the caller's


def test_a_worker_keeps_its_result_store_where_a_task_closes_the_app(make_app: MakeApp, tmp_path: object) -> None:
    server = make_app(results=f"sqlite:///{tmp_path}/results.db")

    @server.task(name="test.closes", queue=QUEUE, retry=None)
    def closes(text: str) -> str:
        server.close()
        return text

    with running(server) as worker:
        sent = [closes.send(str(number)) for number in range(5)]
        assert [one.result(10) for one in sent] == [str(number) for number in range(5)]
        assert worker.process.publisher.connected


# ---- among threads -------------------------------------------------------------------------------------------------


@pytest.fixture
def server(make_app: MakeApp) -> App:
    """A worker's app on connections of its own."""
    app = make_app()

    @app.task(name="test.echo", queue=QUEUE, retry=None)
    def echo(text: str) -> str:
        return text

    return app


def test_calls_of_threads_that_each_use_with_app_all_get_their_reply(app: App, server: App, connections: Count) -> None:
    echo = echo_of(app)

    def work(number: int) -> int:
        for turn in range(30):
            with app:
                assert echo.call(f"{number} {turn}") == f"{number} {turn}"
                echo.send("and forget")
        return number

    with running(server, threads=4), ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == list(range(8))
    wait_until(lambda: connections() == 0, what="the last one out has closed")


def test_who_closes_the_app_fails_no_send_or_call_of_other_threads(app: App, server: App) -> None:
    """The others are inside `with app:`, or send without it; a call without it ends with the connection."""
    echo = echo_of(app)
    closing = threading.Event()

    def work(number: int) -> int:
        for turn in range(60):
            if number % 2:
                with app:
                    assert echo.call(f"{turn}") == f"{turn}"
            else:
                echo.send("x")
                app.send_many(messages(echo, 5))
        return number

    def close_again_and_again() -> None:
        while not closing.wait(0.003):
            app.close()

    with running(server, threads=4), ThreadPoolExecutor(7) as pool:
        closer = pool.submit(close_again_and_again)
        working = [pool.submit(work, number) for number in range(6)]
        try:
            assert [one.result(60) for one in working] == list(range(6))
        finally:
            closing.set()
        closer.result(20)


def test_close_leaves_the_connection_to_those_inside_and_the_last_of_them_closes_it(
    app: App, connections: Count
) -> None:
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with app:
            echo.send("x")
            inside.set()
            leave.wait(20)

    echo = echo_of(app)
    thread = threading.Thread(target=other)
    thread.start()
    assert inside.wait(20)
    publisher = app.producer.publisher
    app.close()
    assert publisher.connected
    assert app.producer.publisher is publisher
    leave.set()
    thread.join(20)
    assert connections() == 0


def test_who_is_inside_alone_may_close_and_use_it_again(app: App, vhost: Broker, connections: Count) -> None:
    echo = echo_of(app)
    with app:
        echo.send("x")
        app.close()
        assert connections() == 0
        echo.send("x")
        with app:
            echo.send("x")
        assert connections() == 1, "the inner block is not the last"
    assert connections() == 0
    assert vhost.count(QUEUE) == 3


# ---- by no call ----------------------------------------------------------------------------------------------------


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_apps_that_are_dropped_without_a_close_leave_no_thread_and_no_descriptor(
    vhost: Broker, connections: Count
) -> None:
    def use() -> None:
        dropped = App(vhost.url, settings=Settings())
        echo_of(dropped).send("x")

    use()
    gc.collect()
    wait_until(lambda: connections() == 0, what="the first one's thread has ended")
    files, threads = descriptors(), threading.active_count()
    for _ in range(5):
        use()
    gc.collect()
    wait_until(lambda: threading.active_count() <= threads, what="the threads have ended")
    wait_until(lambda: gc.collect() >= 0 and descriptors() <= files, what="their descriptors are closed")
    assert vhost.count(QUEUE) == 6


def test_what_a_dropped_app_was_given_to_send_is_confirmed_first(vhost: Broker, connections: Count) -> None:
    """`send_each` that is left early has read more than was confirmed."""

    def use() -> None:
        dropped = App(vhost.url, settings=Settings())
        outcomes = dropped.send_each(messages(echo_of(dropped), 1000, "x" * 2000))
        next(outcomes)

    begun = time.monotonic()
    use()
    gc.collect()
    assert time.monotonic() - begun < 20
    wait_until(lambda: connections() == 0, what="its thread has ended")
    assert vhost.count(QUEUE) > 100
