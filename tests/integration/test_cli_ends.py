"""How the program ends as a process: Ctrl-C and SIGTERM, in a terminal too, a closed pipe, a broker that is too old."""

from __future__ import annotations

import os
import pty
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pika
import pytest
from pika import spec

from tests.cli import environment, run, started
from tests.rawclient import CLOSE, OPEN, START_OK
from tests.support import Broker, wait_until

# A program whose terminal is its standard input: what a shell does.
IN_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "amqpworker", *sys.argv[1:]])
"""

SHOP = """
from pathlib import Path
from amqpworker import App
app = App()

@app.task(name="shop.wait", queue="work")
def wait() -> None:
    Path("begun").touch()
    import time
    while not Path("go").exists():
        time.sleep(0.01)
    Path("done").touch()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_tool_that_is_interrupted_ends_without_a_traceback(
    tmp_path: Path, vhost: Broker, number: signal.Signals, code: int
) -> None:
    vhost.management.request("PUT", "exchanges", vhost.vhost, "amqpworker.tasks", body={"type": "direct"})
    vhost.declare_queue("quiet")
    vhost.management.request(
        "POST", "bindings", vhost.vhost, "e", "amqpworker.tasks", "q", "quiet", body={"routing_key": "quiet"}
    )
    with started(tmp_path, environment(vhost.url), "call", "a.b", "-q", "quiet", "--timeout", "60") as process:
        vhost.wait_for_count("quiet", 1)
        process.send_signal(number)
        out, err = process.communicate(timeout=15)
    assert (process.returncode, out, err) == (code, "", "")


def test_the_program_ends_quietly_when_its_output_is_no_longer_read(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    with started(tmp_path, environment(), "topology", "show", "shop:app", "--json") as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
        process.wait(15)


@contextmanager
def in_terminal(folder: Path, env: dict[str, str], *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run the program in a terminal of its own; yield the process, and the side of the terminal where keys are pressed."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", IN_TERMINAL, *arguments]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=env, stdin=theirs, stdout=theirs, stderr=log)
    os.close(theirs)
    try:
        yield process, ours
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        os.close(ours)


def test_one_ctrl_c_in_a_terminal_lets_the_running_task_end(tmp_path: Path, vhost: Broker) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    env = environment(vhost.url)
    with in_terminal(tmp_path, env, "worker", "shop:app", "-p", "2") as (process, keys):
        log = tmp_path / "log"
        wait_until(lambda: log.read_text().count("process_started") == 2, 20)
        assert run(tmp_path, env, "send", "shop.wait", "--app", "shop:app").code == 0
        wait_until((tmp_path / "begun").exists)
        os.write(keys, b"\x03")
        wait_until(lambda: log.read_text().count("worker_draining") == 2)
        (tmp_path / "go").touch()
        assert process.wait(20) == 0
    assert (tmp_path / "done").exists()
    assert "Traceback" not in log.read_text()


def test_a_second_ctrl_c_in_a_terminal_ends_at_once(tmp_path: Path, vhost: Broker) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    env = environment(vhost.url)
    with in_terminal(tmp_path, env, "worker", "shop:app", "-p", "1") as (process, keys):
        log = tmp_path / "log"
        wait_until(lambda: "pool_started" in log.read_text(), 20)
        assert run(tmp_path, env, "send", "shop.wait", "--app", "shop:app").code == 0
        wait_until((tmp_path / "begun").exists)
        os.write(keys, b"\x03")
        wait_until(lambda: "worker_draining" in log.read_text())
        os.write(keys, b"\x03")
        assert process.wait(10) == 3
    assert "Traceback" not in log.read_text()
    vhost.wait_for_count("work", 1)


# ---- a broker that is too old -----------------------------------------------------------------------------------------


def greet(connection: socket.socket, properties: dict[str, str]) -> None:
    """Play a broker that opens a connection, calls itself by these properties, and closes it when it is asked to."""

    def say(method: object) -> None:
        connection.sendall(pika.frame.Method(0, method).marshal())

    def hear(wanted: bytes) -> None:
        heard = b""
        while wanted not in heard:
            # A worker that has learnt enough hangs up in the middle of its next attempt.
            if not (data := connection.recv(65536)):
                raise ConnectionAbortedError
            heard += data

    hear(b"AMQP\x00\x00\x09\x01")
    say(spec.Connection.Start(0, 9, properties, b"PLAIN", b"en_US"))
    hear(struct.pack(">HH", *START_OK))
    say(spec.Connection.Tune(0, 131072, 0))
    hear(struct.pack(">HH", *OPEN))
    say(spec.Connection.OpenOk())
    hear(struct.pack(">HH", *CLOSE))
    say(spec.Connection.CloseOk())


@contextmanager
def fake_broker(properties: dict[str, str]) -> Iterator[str]:
    """Listen as such a broker, to any number of clients at a time; yield its URL."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                greet(connection, properties)

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    threading.Thread(target=answer, args=(connection,), name="fake-client", daemon=True).start()

        thread = threading.Thread(target=serve, name="fake-broker", daemon=True)
        thread.start()
        try:
            yield f"amqp://127.0.0.1:{server.getsockname()[1]}/"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(10)


@pytest.mark.parametrize(
    ("properties", "told"),
    [
        ({"product": "RabbitMQ", "version": "3.9.29"}, "RabbitMQ 3.9.29: amqpworker requires 3.10 or later"),
        ({"product": "Other", "version": "9"}, "The broker is 'Other'"),
    ],
)
def test_a_broker_that_is_too_old_or_another_is_one_line_and_exit_code_2(
    tmp_path: Path, properties: dict[str, str], told: str
) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    with fake_broker(properties) as url:
        for line in ("worker shop:app -p 2", "dead list shop:app", "send a.b -q c", "topology check shop:app"):
            ended = run(tmp_path, environment(url), *line.split())
            assert told in ended.complaint()
            assert (ended.code, ended.out) == (2, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_program_loads_ends_it_without_output(tmp_path: Path, number: signal.Signals) -> None:
    # As slow as it can be: the import waits for the signal.
    (tmp_path / "typer.py").write_text(f"import os\nos.kill(os.getpid(), {int(number)})\n")
    done = subprocess.run(
        [sys.executable, "-m", "amqpworker", "--help"],
        cwd=tmp_path,
        env={**environment(), "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -number
    assert (done.stdout, done.stderr) == ("", "")


# Without such a handler the kernel would drop a signal to the first process of a container, and `docker stop` take 10 s.
HANDLED = """
import os, signal
handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
os._exit(70 if all(map(callable, handlers)) and signal.default_int_handler not in handlers else 71)
"""


def test_signals_have_a_handler_before_anything_large_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text(HANDLED)
    env = {**environment(), "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-m", "amqpworker", "worker"], cwd=tmp_path, env=env, check=False)
    assert done.returncode == 70


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_a_mistake_keeps_its_exit_code_where_standard_error_is_closed(tmp_path: Path, closed: str) -> None:
    command = f'exec "{sys.executable}" -m amqpworker worker no_such:app -p 1 {closed}'
    done = subprocess.run(["/bin/sh", "-c", command], cwd=tmp_path, env=environment(), timeout=60, check=False)
    assert done.returncode == 2
