"""Forks that no hook of Python hears of, as uWSGI's: what a child inherits is known by its process id."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

from tests.integration.tasks import QUEUE
from tests.proxy import Proxy
from tests.support import Broker, wait_until

# `PyDLL` keeps the interpreter's lock during the call, as uWSGI does: a child without it could not continue.
HEAD = """
    import ctypes, os, sys, time, traceback
    from amqpworker import App, Settings, SendError, ResultStoreError
    def is_quiet(task):
        if task == str(os.getpid()):
            return True
        with open(f"/proc/self/task/{task}/wchan") as file:
            return "poll" in file.read()
    def fork():
        # Not while another thread waits for the interpreter's lock: CPython itself would hang in the child.
        until = time.monotonic() + 20
        while not all(map(is_quiet, os.listdir("/proc/self/task"))) and time.monotonic() < until:
            time.sleep(0.005)
        return ctypes.PyDLL(None).fork()
    def in_child(work):
        child = fork()
        if child == 0:
            code = 1
            try:
                work()
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        return child
    def ended(child):
        until = time.monotonic() + 20
        while time.monotonic() < until:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid: return status
            time.sleep(0.02)
        os.kill(child, 9)
        return os.waitpid(child, 0)[1]
    results = "sqlite:///" + sys.argv[2] if len(sys.argv) > 2 else None
    app = App(sys.argv[1], results=results, settings=Settings(send_timeout=8.0))
    @app.remote(name="test.echo", queue="work")
    def echo(text: str) -> str: ...
"""


def run(text: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(HEAD) + textwrap.dedent(text), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def test_children_of_a_master_that_has_sent_can_send(vhost: Broker) -> None:
    told = run(
        """
        echo.send("master, before")
        def work():
            for _ in range(10): echo.send("child")
            app.send_many(echo.message("x") for _ in range(10))
            with app: echo.send("x")
        children = [in_child(work) for _ in range(4)]
        for _ in range(10): echo.send("master, meanwhile")
        print([ended(child) for child in children])
        echo.send("master, after")
        """,
        vhost.url,
    )
    assert told == "[0, 0, 0, 0]\n"
    assert vhost.count(QUEUE) == 12 + 4 * 21


def test_a_child_that_sends_lets_go_of_the_connection_of_its_master(vhost: Broker) -> None:
    """Else the broker would not see the end of a killed master."""
    program = """
        import select, signal
        echo.send("x")
        ready, written = os.pipe()
        def sends():
            echo.send("child")
            os.write(written, b"1")
            signal.pause()
        child = in_child(sends)
        os.close(written)
        print(child, flush=True)
        if select.select([ready], [], [], 30)[0] and os.read(ready, 1):
            print("sent", flush=True)
        else:
            print("not sent", flush=True)
        signal.pause()
        """
    with Proxy(vhost.url) as proxy:
        command = [sys.executable, "-c", textwrap.dedent(HEAD) + textwrap.dedent(program), proxy.url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as master:
            assert master.stdout is not None
            child = int(master.stdout.readline())
            try:
                said = master.stdout.readline()
                master.kill()
                assert said == "sent\n"
                wait_until(lambda: proxy.ended == 1, what="the broker sees the end of the master's connection")
            finally:
                os.kill(child, signal.SIGKILL)
                master.kill()


def test_a_child_uses_the_store_as_if_its_master_had_not(vhost: Broker, tmp_path: object) -> None:
    told = run(
        """
        sent = echo.send("x")
        def asks():
            assert sent.status().state == "pending"
        print(ended(in_child(asks)))
        """,
        vhost.url,
        f"{tmp_path}/results.db",
    )
    assert told == "0\n"


def test_a_child_whose_master_had_the_store_open_refuses_to_use_it(vhost: Broker, tmp_path: object) -> None:
    """SQLite believes that the child has the locks of its master: a result that it stored could be lost."""
    told = run(
        """
        sent = echo.send("x")
        sent.status()
        def asks():
            try:
                sent.status()
            except ResultStoreError as error:
                assert "forked" in str(error), error
            else:
                raise AssertionError
            echo.send("but it can send")
        print(ended(in_child(asks)))
        app.close()
        print(ended(in_child(lambda: sent.status())))
        """,
        vhost.url,
        f"{tmp_path}/results.db",
    )
    assert told == "0\n0\n"
    assert vhost.count(QUEUE) == 2
