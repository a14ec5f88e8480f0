"""Who is served at a supervisor's health address and status socket, and that no client keeps others out."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from amqpworker.cli import status_command as cli_status
from amqpworker.cli.status_command import get_status
from amqpworker.errors import AmqpWorkerError, NotConnected
from amqpworker.supervisor.health import HealthServer, serve_status, split_address
from tests.unit.supervisor.test_health import STATE, server, where  # noqa: F401 - fixtures

SLOW = 250


def connected(address: str) -> socket.socket:
    """Return a client that has connected and sends nothing."""
    family = socket.AF_UNIX if "/" in address else socket.AF_INET6 if "[" in address else socket.AF_INET
    client = socket.socket(family)
    client.connect(address if "/" in address else split_address(address))
    client.settimeout(10)
    return client


@contextmanager
def slow_clients(address: str, count: int) -> Iterator[None]:
    """Have so many clients begin a request and never end it."""
    clients = []
    try:
        for _ in range(count):
            clients.append(connected(address))
            clients[-1].sendall(b"GET /status HTTP/1.0\r\nX-Slow:")
        yield
    finally:
        for one in clients:
            one.close()


def test_slow_clients_shut_out_no_one_here_or_at_another_server(server: HealthServer, tmp_path: Path) -> None:  # noqa: F811
    other = HealthServer(str(tmp_path / "other.sock"), lambda: STATE)
    with slow_clients(server.address, SLOW):
        for _ in range(3):
            assert get_status(server.address)["pid"] == 4711
        connection = connected(other.address)
        connection.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
        assert connection.recv(8) == b"HTTP/1.0"
        connection.close()
    other.close()


def test_the_client_that_has_waited_longest_is_disconnected_so_that_few_threads_serve_all(server: HealthServer) -> None:  # noqa: F811
    first = connected(server.address)
    with slow_clients(server.address, SLOW):
        assert first.recv(1) == b""
    first.close()


def test_a_head_request_gets_the_headers_of_a_get_and_no_body(server: HealthServer) -> None:  # noqa: F811
    answers = []
    for method in ("GET", "HEAD"):
        client = connected(server.address)
        connection = http.client.HTTPConnection("localhost")
        connection.sock = client
        connection.request(method, "/livez")
        response = connection.getresponse()
        answers.append((response.status, response.getheader("Content-Type"), response.getheader("Content-Length")))
        body = response.read()
        assert bool(body) is (method == "GET")
        client.close()
    assert answers[0] == answers[1]
    assert answers[0][0] == 200


SHORT = """
import os, resource, socket, sys, threading, time
from amqpworker.supervisor.health import HealthServer

server = HealthServer(sys.argv[1], lambda: None)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
clients = [socket.socket(socket.AF_UNIX) for _ in range(3)]
held = []
try:
    while True:
        held.append(os.dup(0))
except OSError:
    pass
for one in clients:
    one.connect(sys.argv[1])
    one.sendall(b"GET /livez HTTP/1.0\\r\\n\\r\\n")
begun, ran = time.monotonic(), time.process_time()
threading.Event().wait(2)
share = (time.process_time() - ran) / (time.monotonic() - begun)
for descriptor in held:
    os.close(descriptor)
for one in clients:
    one.settimeout(10)
    assert one.recv(8) == b"HTTP/1.0"
print(share)
"""


def test_a_server_without_a_descriptor_left_waits_without_spinning_and_answers_later(tmp_path: Path) -> None:
    """A loop that asks all the time takes all of a core, or with others beside it a good part."""
    done = subprocess.run(
        [sys.executable, "-c", SHORT, str(tmp_path / "x.sock")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 0.15


def test_a_path_with_a_colon_is_the_path_of_a_unix_socket(tmp_path: Path) -> None:
    folder = tmp_path / "shop:8080"
    folder.mkdir()
    running = HealthServer(str(folder / "x.sock"), lambda: STATE)
    connected(running.address).close()
    running.close()
    running = HealthServer(f"{tmp_path}/[::1]:80", lambda: STATE)
    connected(running.address).close()
    running.close()


def test_a_unit_with_two_runtime_directories_has_its_socket_in_the_one_that_status_looks_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from amqpworker.supervisor import sockets

    monkeypatch.setattr(sockets, "SHARED", tmp_path / "amqpworker")
    first, second = tmp_path / "shop", tmp_path / "amqpworker" / "shop"
    for given, folder in (
        (f"{first}:{second}", second / "amqpworker"),
        (f"{second}:{first}", second / "amqpworker"),
        (f"{first}:{tmp_path / 'more'}", first / "amqpworker"),
        (str(first), first / "amqpworker"),
    ):
        monkeypatch.setenv("RUNTIME_DIRECTORY", given)
        with serve_status(None, lambda: STATE):
            assert [path.parent for path in sockets.sockets()] == [folder]


def test_sockets_of_supervisors_that_were_killed_are_removed_by_the_next_one_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    folder = tmp_path / "amqpworker"
    folder.mkdir(mode=0o700)
    gone = subprocess.Popen(["true"])
    gone.wait()
    names = {
        f"{gone.pid}.sock": False,
        "99999999999999999999.sock": False,  # no process can have such an id
        f"{os.getppid()}.sock": True,  # it may be about to listen
        "other.sock": True,
    }
    for name in names:
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(folder / name))
    elsewhere = socket.socket(socket.AF_UNIX)  # of a supervisor in a container, whose id there is free here
    elsewhere.bind(str(folder / f"{gone.pid + 1}0000000.sock"))
    elsewhere.listen()
    with serve_status(None, lambda: STATE):
        for name, stays in names.items():
            assert (folder / name).exists() is stays, name
        assert (folder / f"{gone.pid + 1}0000000.sock").exists()
        assert (folder / f"{os.getpid()}.sock").exists()
    elsewhere.close()


def test_the_place_of_a_supervisor_that_hangs_is_not_taken_however_many_wait_there(tmp_path: Path) -> None:
    hanging = socket.socket(socket.AF_UNIX)
    hanging.bind(str(tmp_path / "x.sock"))
    hanging.listen(0)
    waiting = socket.socket(socket.AF_UNIX)
    waiting.connect(str(tmp_path / "x.sock"))
    begun = time.monotonic()
    with pytest.raises(AmqpWorkerError, match="another process listens there already"):
        HealthServer(str(tmp_path / "x.sock"), lambda: None)
    assert time.monotonic() - begun < 30
    waiting.close()
    hanging.close()
    HealthServer(str(tmp_path / "x.sock"), lambda: None).close()


def test_status_waits_for_a_place_in_the_line_of_a_busy_supervisor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A unix socket whose line is full refuses a client with a time limit at once."""
    monkeypatch.setattr(cli_status, "TIMEOUT", 30.0)
    address = str(tmp_path / "x.sock")
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(address)
        busy.listen(0)
        first = connected(address)
        told: list[object] = []
        asking = threading.Thread(target=lambda: told.append(get_status(address)))
        asking.start()
        asking.join(0.3)
        busy.accept()[0].close()
        peer, _ = busy.accept()
        with peer:
            peer.recv(1000)
            peer.sendall(b'HTTP/1.0 200 OK\r\n\r\n{"wanted": 1}')
        asking.join(30)
        first.close()
    assert told == [{"wanted": 1}]
    monkeypatch.setattr(cli_status, "TIMEOUT", 0.2)
    with socket.socket(socket.AF_UNIX) as hanging:
        hanging.bind(str(tmp_path / "y.sock"))
        hanging.listen(0)
        first = connected(str(tmp_path / "y.sock"))
        with pytest.raises(NotConnected, match="it hangs, or the machine is overloaded"):
            get_status(str(tmp_path / "y.sock"))
        first.close()
