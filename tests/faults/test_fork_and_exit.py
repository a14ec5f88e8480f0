"""Forked processes have connections of their own, and no interpreter ends before its messages are confirmed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest

from amqpworker import App
from amqpworker.broker.pika_connection import socket_of
from amqpworker.testing.processes import free_ports
from tests.integration.tasks import QUEUE, echo_of, messages
from tests.proxy import Proxy
from tests.support import Broker, wait_until
from tests.workers import running

MakeApp = Callable[..., App]

# from Python 3.12 on: threads of the parent are not in the child, which is what is tried here
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def in_child(work: Callable[[], object]) -> Callable[[], None]:
    """Run `work` in a forked child; the answer waits for its end and fails where it failed."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def end() -> None:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

    return end


def test_parent_and_child_send_over_connections_of_their_own(app: App, vhost: Broker) -> None:
    echo = echo_of(app)
    echo.send("parent, before")
    threads = threading.active_count()
    end = in_child(lambda: [echo.send("child") for _ in range(50)])
    for _ in range(50):
        echo.send("parent, meanwhile")
    end()
    echo.send("parent, after")
    assert threading.active_count() == threads  # the parent's connection is still the one that it was
    assert vhost.count(QUEUE) == 102


def test_the_end_of_a_child_does_not_end_the_parent_s_connection(make_app: MakeApp, vhost: Broker) -> None:
    with Proxy(vhost.url) as proxy:
        app = make_app(proxy.url)
        echo = echo_of(app)
        echo.send("x")
        for number in range(3):
            in_child(lambda: None)()
            in_child(app.close)()
            in_child(lambda: echo.send("x"))()
            echo.send("x")
            # one for each child that sent, and the parent's is still the first
            assert proxy.accepted == number + 2
    assert vhost.count(QUEUE) == 7


def test_the_broker_sees_the_end_of_a_killed_parent_though_its_child_lives_on(vhost: Broker) -> None:
    program = """
    import os, signal
    echo.send("x")
    child = os.fork()
    if child:
        print(child, flush=True)
    signal.pause()
    """
    with Proxy(vhost.url) as proxy:
        parent = subprocess.Popen(python(HEAD + program, proxy.url, "own"), stdout=subprocess.PIPE, text=True)
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
        wait_until(lambda: proxy.ended == 1)  # long before a heartbeat is missed
        parent.wait(10)
        parent.stdout.close()
        os.kill(child, signal.SIGKILL)


def test_a_child_of_a_task_does_not_keep_the_connection_of_its_worker(app: App) -> None:
    """A pool of processes that a task left behind would hide the end of its worker from the broker."""
    app.task(name="rest", queue=QUEUE)(lambda: None)
    with running(app) as worker:
        connection = worker.process.consumer.keeper.connection
        assert connection is not None
        number = socket_of(connection).fileno()

        def is_closed() -> None:
            with pytest.raises(OSError, match="Bad file"):
                os.fstat(number)

        def is_closed_in_a_child() -> None:
            in_child(is_closed)()

        in_child(is_closed_in_a_child)()
        in_child(is_closed)()
        assert os.fstat(number)


def test_children_forked_while_other_threads_send_can_send(app: App, vhost: Broker) -> None:
    echo = echo_of(app)
    echo.send("makes the topology")
    stop = threading.Event()
    counts: list[int] = []

    def run() -> None:
        count = 0
        while not stop.is_set():
            count += len(app.send_many(messages(echo, 20)))
            echo.send("x")
            count += 1
        counts.append(count)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    ends = [in_child(lambda: (echo.send("child"), app.send_many(messages(echo, 30)))) for _ in range(8)]
    for end in ends:
        end()
    stop.set()
    for thread in threads:
        thread.join(10)
    assert len(counts) == 4
    assert vhost.count(QUEUE) == 1 + sum(counts) + 8 * 31


def test_a_child_of_a_child_can_send(app: App, vhost: Broker) -> None:
    echo = echo_of(app)
    echo.send("x")
    in_child(lambda: (echo.send("child"), in_child(lambda: echo.send("grandchild"))(), echo.send("child")))()
    echo.send("x")
    assert vhost.count(QUEUE) == 5


SHARED: dict[str, Any] = {}


def send_in_worker(number: int) -> int:
    SHARED["echo"].send(f"{number}")
    return os.getpid()


def test_multiprocessing_workers_that_were_forked_can_send(app: App, vhost: Broker) -> None:
    SHARED["echo"] = echo_of(app)
    SHARED["echo"].send("the parent uses it first, as with gunicorn's preload")
    with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("fork")) as pool:
        pids = set(pool.map(send_in_worker, range(60)))
    assert os.getpid() not in pids
    SHARED["echo"].send("and after")
    assert vhost.count(QUEUE) == 62


def test_calls_in_a_child_and_in_the_parent_are_answered_each_to_its_own(
    app: App, make_app: MakeApp, vhost: Broker
) -> None:
    echo = echo_of(app)
    times_out(echo.options(timeout=2).call)  # the parent has called before, and the child inherits what it noted
    vhost.get(QUEUE)
    server = make_app()

    @server.task(name="test.echo", queue=QUEUE)
    def answer(text: str) -> str:
        return text

    def calls(who: str) -> None:
        for number in range(20):
            assert echo.options(timeout=10).call(f"{who} {number}") == f"{who} {number}"

    end = in_child(lambda: calls("child"))
    with running(server, threads=2):
        calls("parent")
        end()


def test_calls_without_a_reply_end_in_time_in_a_child_and_in_the_parent(app: App) -> None:
    echo = echo_of(app)
    end = in_child(lambda: times_out(echo.options(timeout=1).call))
    times_out(echo.options(timeout=1).call)
    end()


def times_out(call: Callable[[str], str]) -> None:
    with pytest.raises(TimeoutError):
        call("x")


# ---- the interpreter's exit ----------------------------------------------------------------------------------------


def python(text: str, *arguments: str) -> list[str]:
    """Return the command line of a program."""
    return [sys.executable, "-X", "dev", "-c", textwrap.dedent(text), *arguments]


def run_program(text: str, *arguments: str, timeout: float = 30.0) -> tuple[float, str]:
    """Run a program to its end; return how long it took and what it printed."""
    begin = time.monotonic()
    done = subprocess.run(
        python(text, *arguments),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    return time.monotonic() - begin, done.stdout


HEAD = """
    import sys, threading, itertools
    from amqpworker import App, Settings, SendError
    app = App(sys.argv[1], settings=Settings(send_timeout=5.0))
    @app.remote(name="test.echo", queue="work")
    def echo(text: str) -> str: ...
"""


def test_what_was_read_is_confirmed_before_the_interpreter_ends(vhost: Broker) -> None:
    run_program(
        HEAD
        + """
    echo.send("x")
    def source():
        for _ in range(700):
            yield echo.message("x" * 5000)
        sys.exit()
    list(app.send_each(source()))
    """,
        vhost.url,
    )
    assert vhost.count(QUEUE) == 701


def test_a_thread_that_sends_is_waited_for(vhost: Broker) -> None:
    run_program(
        HEAD
        + """
    threading.Thread(target=lambda: print(len(list(app.send_each(echo.message("x") for _ in range(3000)))))).start()
    """,
        vhost.url,
    )
    assert vhost.count(QUEUE) == 3000


def test_a_daemon_thread_that_sends_for_ever_does_not_hold_up_the_exit(vhost: Broker) -> None:
    seconds, printed = run_program(
        HEAD
        + """
    ids = []
    def run():
        for number in itertools.count():
            try:
                ids.append(echo.send("x").id)
            except SendError:
                pass
    threads = [threading.Thread(target=run, daemon=True) for _ in range(4)]
    for thread in threads: thread.start()
    while len(ids) < 200: pass
    print(len(ids))
    """,
        vhost.url,
    )
    assert seconds < 8
    assert vhost.count(QUEUE) >= int(printed) >= 200


def test_the_exit_is_bounded_where_the_broker_is_away() -> None:
    seconds, _ = run_program(
        HEAD
        + """
    import logging; logging.disable()
    outcomes = app.send_each(echo.message("x") for _ in range(10))
    threading.Thread(target=lambda: next(outcomes), daemon=True).start()
    """,
        f"amqp://127.0.0.1:{free_ports(1)[0]}/",
    )
    assert seconds < 9


def test_sending_from_an_exit_handler_works(vhost: Broker) -> None:
    run_program(
        HEAD
        + """
    import atexit
    atexit.register(lambda: echo.send("last"))
    echo.send("first")
    """,
        vhost.url,
    )
    assert vhost.count(QUEUE) == 2


def test_the_first_send_of_a_program_imports_nothing_more(vhost: Broker) -> None:
    """
    A web server has loaded it all before it forks, and its first request does not wait for it.

    Nor does a child that is forked while another thread loads something: it could never load that.
    """
    body = (
        HEAD
        + """
    before = set(sys.modules)
    echo.send("x")
    print(sorted(name for name in set(sys.modules) - before if name.startswith(("amqpworker", "pika", "ssl", "encodings"))))
"""
    )
    _, printed = run_program(body, vhost.url, "own")
    assert printed == "[]\n"
