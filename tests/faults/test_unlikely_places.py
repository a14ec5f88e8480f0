"""Sending from unusual places: loggers, finalizers, signal handlers, and forks at a bad moment."""

from __future__ import annotations

import logging
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from amqpworker import App, BatchFailed, NotConnected
from amqpworker.task import RemoteTask
from tests.integration.tasks import QUEUE, echo_of
from tests.proxy import Proxy
from tests.support import Broker, wait_until

MakeApp = Callable[..., App]
Echo = RemoteTask[[str], str]


@pytest.fixture
def app(make_app: MakeApp) -> App:
    return make_app(send_timeout=15.0)


@contextmanager
def handling(handler: logging.Handler) -> Iterator[None]:
    """Have a handler hear the lines of amqpworker."""
    logger = logging.getLogger("amqpworker")
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


class TaskApp(logging.Handler):
    """Sends each line that it gets, as a handler for audits does; it notes how long that took and what came of it."""

    def __init__(self, echo: Echo) -> None:
        super().__init__()
        self.echo = echo
        self.seconds: list[float] = []
        self.errors: list[Exception] = []
        self._busy = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        begin = time.monotonic()
        try:
            self.echo.send(record.getMessage())
        except Exception as error:
            self.errors.append(error)
        self.seconds.append(time.monotonic() - begin)


def test_a_handler_that_sends_each_line_holds_nothing_up(app: App, vhost: Broker) -> None:
    handler = TaskApp(echo_of(app, "audit"))
    with handling(handler):
        begin = time.monotonic()
        handler.echo.options(queue=app.queue(QUEUE)).send("x")
        assert time.monotonic() - begin < 10
        wait_until(lambda: vhost.count("audit") >= 1, what="the line about the connection is sent")
    assert handler.errors == []


def test_a_handler_that_sends_under_its_lock_does_not_stop_the_thread_whose_line_needs_it(
    app: App, vhost: Broker, make_app: MakeApp
) -> None:
    """`logging` holds the handler's lock while it emits, and the confirm comes after a line of the I/O thread."""
    with Proxy(vhost.url) as proxy:
        audited = make_app(proxy.url, send_timeout=15.0)
        handler = TaskApp(echo_of(audited, "audit"))
        with handling(handler):
            # The first send of that app: its I/O thread logs that it has connected before anything is confirmed.
            begin = time.monotonic()
            logging.getLogger("amqpworker.somewhere").warning("audit this")
            assert time.monotonic() - begin < 10
            vhost.wait_for_count("audit", 2)
        assert handler.errors == []


class Finalised:
    """Sends when it is finalised, wherever that happens."""

    def __init__(self, echo: Echo, told: list[object]) -> None:
        self.echo = echo
        self.told = told

    def __del__(self) -> None:
        begin = time.monotonic()
        try:
            self.echo.send("finalised")
            self.told.append(None)
        except Exception as error:
            self.told.append(error)
        self.told.append(time.monotonic() - begin)


def test_a_send_from_the_i_o_thread_is_refused_at_once_and_the_error_names_the_place(app: App) -> None:
    echo = echo_of(app)
    echo.send("connects")
    told: list[object] = []
    publisher = app.producer.publisher
    held = [Finalised(echo, told)]
    publisher.keeper.call_later(0, held.clear)
    publisher.keeper.wake()
    wait_until(lambda: len(told) == 2, 25, "it was finalised in the I/O thread")
    assert isinstance(told[0], NotConnected)
    assert "amqpworker-publisher" in str(told[0])
    assert told[0].message is not None
    assert isinstance(told[1], float)
    assert told[1] < 5
    app.send(told[0].message)


@pytest.mark.parametrize("verb", ["call", "send_many", "close"])
def test_every_verb_is_refused_or_done_at_once_in_the_i_o_thread(verb: str, app: App) -> None:
    echo = echo_of(app)
    echo.send("connects")
    told: list[object] = []

    def act() -> None:
        begin = time.monotonic()
        try:
            {
                "call": lambda: echo.call("x"),
                "send_many": lambda: app.send_many([echo.message("x")]),
                "close": app.close,
            }[verb]()
            told.append(None)
        except NotConnected as error:
            told.append(error)
        except BatchFailed as failed:
            told.extend(failed.exceptions)
        told.append(time.monotonic() - begin)

    publisher = app.producer.publisher
    publisher.keeper.call_later(0, act)
    publisher.keeper.wake()
    wait_until(lambda: len(told) == 2, 25, "it was done in the I/O thread")
    assert isinstance(told[1], float)
    assert told[1] < 2
    assert isinstance(told[0], type(None) if verb == "close" else NotConnected)
    echo.send("continues")


# ---- programs of their own -----------------------------------------------------------------------------------------

HEAD = """
    import os, signal, sys, threading, time, traceback
    from amqpworker import App, Settings, SendError
    results = "sqlite:///" + sys.argv[2] if len(sys.argv) > 2 else None
    app = App(sys.argv[1], results=results, settings=Settings(send_timeout=15.0))
    @app.remote(name="test.echo", queue="work")
    def echo(text: str) -> str: ...
"""


def run(text: str, *arguments: str, timeout: float = 40.0) -> str:
    """Run a program to its end, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(HEAD) + textwrap.dedent(text), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


SIGNALS = """
    sent = []
    deep = []
    def handler(*_):
        # Interrupted itself, now and then; a broker that is slow does not make it do so for ever.
        deep.append(1)
        if len(deep) < 4:
            sent.append(echo.send("from the handler").id)
        deep.pop()
    signal.signal(signal.SIGALRM, handler)
    begin = time.monotonic()
    for number in range(25):
        # At another moment of the first send each time, and again and again during it.
        signal.setitimer(signal.ITIMER_REAL, 0.00002 + 0.00002 * number, 0.002)
        echo.send("x")
        signal.setitimer(signal.ITIMER_REAL, 0)
        app.close()
    print(time.monotonic() - begin < 15, bool(sent))
"""


def test_a_signal_handler_that_sends_never_waits_for_what_it_interrupts(vhost: Broker) -> None:
    for _ in range(3):
        assert run(SIGNALS, vhost.url) == "True True\n"


STORE_SIGNALS = """
    sent = echo.send("x")
    from amqpworker.errors import AmqpWorkerError
    refused = []
    asked = []
    def handler(*_):
        asked.append(1)
        try:
            sent.status()
        except AmqpWorkerError as error:
            refused.append(str(error))
    signal.signal(signal.SIGALRM, handler)
    for number in range(150):
        # At another moment of the opening, the look and the closing each time.
        signal.setitimer(signal.ITIMER_REAL, 0.00005 + 0.000004 * number)
        sent.status()
        app.close()
        signal.setitimer(signal.ITIMER_REAL, 0)
    print(len(asked) > 5, all("signal handler" in one for one in refused))
"""


def test_a_signal_handler_that_asks_for_a_result_never_waits_for_what_it_interrupts(
    vhost: Broker, tmp_path: object
) -> None:
    assert run(STORE_SIGNALS, vhost.url, f"{tmp_path}/results.db") == "True True\n"


FORKS = """
    stop = threading.Event()
    def use():
        while not stop.is_set():
            other = App(sys.argv[1], results=results)
            other.store().get(["opened"])
            app._stored_results.clear()
            app.store().get(["opened"])
    threads = [threading.Thread(target=use) for _ in range(3)]
    for thread in threads: thread.start()
    children = []
    for number in range(20):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                sent = echo.send("child")
                assert sent.status().state == "pending"
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(child)
        time.sleep(0.01)
    stop.set()
    for thread in threads: thread.join()
    def ended(child):
        until = time.monotonic() + 25
        while time.monotonic() < until:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid: return status
            time.sleep(0.02)
        os.kill(child, 9)
        return os.waitpid(child, 0)[1]
    print([ended(child) for child in children] == [0] * 20)
"""


def test_a_fork_while_other_threads_open_the_store_leaves_a_child_that_works(vhost: Broker, tmp_path: object) -> None:
    assert run(FORKS, vhost.url, f"{tmp_path}/results.db", timeout=90) == "True\n"
    assert vhost.count(QUEUE) == 20
