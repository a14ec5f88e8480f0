"""What a supervisor answers about itself, and where."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from amqpworker.cli import status_command as cli_status
from amqpworker.cli.main import main
from amqpworker.cli.status_command import age, get_status, limit
from amqpworker.errors import AmqpWorkerError, ConfigError, NotConnected
from amqpworker.ipc.recorder import Counts, Recorder, Running, read_recording
from amqpworker.policies.time_limit import UNLIMITED, TimeLimit
from amqpworker.supervisor import sockets as places
from amqpworker.supervisor.fleet import Fleet
from amqpworker.supervisor.health import HealthServer, respond_to, serve_status, split_address
from amqpworker.supervisor.sockets import socket_folder, sockets
from amqpworker.supervisor.status import History, Observation, ProcessView, SupervisorStatus, status_of
from amqpworker.worker.context import Run

LIMITS = (UNLIMITED, TimeLimit(60), TimeLimit(30, 90))
TASK = Running(0, "m-1", "shop.task", 1, 990.0, 0.0, 0.0)
PROCESS = ProcessView("main", 1, 4712, "consuming", 1, 900.0, True, "", 30 << 20, Counts(7, 1, 2), (TASK,), 2, 14, 0)
STATE = SupervisorStatus(4711, 1000.0, 1, 1, False, False, Counts(7, 1, 2), (PROCESS,), ("went wrong",))


def test_alive_is_who_looks_and_ready_is_who_consumes_with_every_process() -> None:
    waiting = replace(STATE, processes=(replace(PROCESS, consuming=False),))
    for state, now, alive, ready in (
        (STATE, 1001.0, 200, 200),
        (waiting, 1001.0, 200, 503),
        (replace(STATE, stopping=True), 1001.0, 200, 503),
        (STATE, 1011.0, 503, 503),
        (None, 1001.0, 503, 503),
    ):
        assert (respond_to("/livez", state, now)[0], respond_to("/readyz", state, now)[0]) == (alive, ready)


def test_the_status_shows_each_process_and_each_task_that_runs() -> None:
    code, told = respond_to("/status", STATE, 1001.0)
    assert code == 200
    read = json.loads(json.dumps(told))
    assert (read["status"], read["pid"], read["errors"]) == (
        "1/1 consuming, 1 running, 7 done, 2 dead",
        4711,
        ["went wrong"],
    )
    assert read["processes"][0]["running"][0]["task"] == "shop.task"


def test_the_status_adds_up_what_waits_for_a_worker_that_knows_it() -> None:
    knows_less = replace(PROCESS, unknown={"shop.new": 3, "shop.newer": 9}), replace(PROCESS, unknown={"shop.new": 2})
    code, told = respond_to("/status", replace(STATE, processes=knows_less), 1001.0)
    assert (code, list(told["unknown"].items())) == (200, [("shop.newer", 9), ("shop.new", 5)])
    assert told["status"].endswith("2 dead, 14 of unknown tasks waiting")
    assert respond_to("/readyz", replace(STATE, processes=knows_less[:1]), 1001.0)[0] == 200


def test_what_there_is_not_is_not_found() -> None:
    assert respond_to("/", STATE, 1001.0)[0] == 404


@pytest.fixture(params=["unix", "tcp", "tcp6"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "unix":
        return str(tmp_path / "health.sock")
    family, host = (socket.AF_INET, "127.0.0.1") if request.param == "tcp" else (socket.AF_INET6, "::1")
    with socket.socket(family) as free:
        free.bind((host, 0))
        port = free.getsockname()[1]
    return f"[{host}]:{port}" if family == socket.AF_INET6 else f"{host}:{port}"


@pytest.fixture
def server(where: str) -> Iterator[HealthServer]:
    running = HealthServer(where, lambda: replace(STATE, at=time.time()))
    yield running
    running.close()


def test_it_answers_on_a_port_and_on_a_unix_socket(server: HealthServer) -> None:
    assert get_status(server.address)["pid"] == 4711


def test_a_client_that_sends_nothing_more_holds_up_no_other(server: HealthServer) -> None:
    silent = []
    for _ in range(20):
        asking = socket.socket(
            socket.AF_UNIX if "/" in server.address else socket.AF_INET6 if "[" in server.address else socket.AF_INET
        )
        asking.connect(server.address if "/" in server.address else split_address(server.address))
        silent.append(asking)
    assert get_status(server.address)["pid"] == 4711
    for asking in silent:
        asking.close()


def test_two_do_not_answer_at_one_place(server: HealthServer) -> None:
    with pytest.raises(AmqpWorkerError, match="health") as caught:
        HealthServer(server.address, lambda: None)
    assert not isinstance(caught.value, ConfigError), "the process that answers there may end soon"


def test_a_socket_that_was_left_behind_is_taken_over(tmp_path: Path) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / "x.sock"))
    left.close()
    HealthServer(str(tmp_path / "x.sock"), lambda: None).close()
    assert not (tmp_path / "x.sock").exists()


def test_a_file_that_is_not_a_socket_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link", "."):
        with pytest.raises(ConfigError, match=r"health .*: the path exists and is not a socket"):
            HealthServer(f"{tmp_path}/{name}", lambda: None)
    assert (tmp_path / "link").read_text() == "precious"


@pytest.mark.parametrize(
    "where",
    ["8080", "localhost", "127.0.0.1:http", "127.0.0.1:99999", "", "/no/such/folder/x.sock", "/tmp/\0", "\0:80"],
)
def test_what_is_not_an_address_is_refused_in_one_line(where: str) -> None:
    with pytest.raises(ConfigError, match="health"):
        HealthServer(where, lambda: None)


def test_each_supervisor_is_found_by_its_user_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with serve_status(None, lambda: replace(STATE, at=time.time())):
        (found,) = [path for path in sockets() if tmp_path in path.parents]
        assert get_status(str(found))["pid"] == 4711
        assert found.stat().st_mode & 0o077 == 0
        assert socket_folder().stat().st_mode & 0o077 == 0
    assert not found.exists()


def test_a_folder_that_others_may_write_to_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "amqpworker").mkdir(mode=0o777)
    (tmp_path / "amqpworker").chmod(0o777)
    with pytest.raises(ConfigError, match="others may write"):
        socket_folder()
    with serve_status(None, lambda: None):  # the pool runs all the same
        pass


class Other:
    """A server that is not a supervisor."""

    def __init__(self, reply: bytes) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.where = f"127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.serve, args=(reply,), daemon=True).start()

    def serve(self, reply: bytes) -> None:
        peer, _ = self.listener.accept()
        with peer:
            peer.recv(1000)
            peer.sendall(reply)


@pytest.mark.parametrize(
    "reply",
    [b"", b"SSH-2.0\r\n", b"HTTP/1.1 200 OK\r\n\r\nhello", b"HTTP/1.1 200 OK\r\n\r\n[]", b"HTTP/1.1 503 X\r\n\r\n{}"],
)
def test_another_server_is_distinguished_from_a_supervisor(reply: bytes) -> None:
    other: Any = Other(reply)
    with pytest.raises(NotConnected, match=other.where):
        get_status(other.where)
    other.listener.close()


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(-1, "0.0 s"), (0.34, "0.3 s"), (59, "59 s"), (150, "2 min"), (3 * 3600, "3 h"), (10 * 86_400, "10 d")],
)
def test_times_are_shown_as_people_write_them(seconds: float, told: str) -> None:
    assert age(seconds) == told


def test_http_is_kept_to(server: HealthServer) -> None:
    if "/" in server.address:
        return
    connection = http.client.HTTPConnection(server.address, timeout=5)
    connection.request("GET", "/livez?verbose=1")
    response = connection.getresponse()
    assert (response.status, response.getheader("Content-Type")) == (200, "application/json")
    connection.close()


def test_a_supervisor_that_hangs_is_listed_and_one_that_was_killed_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(places, "SHARED", tmp_path)
    monkeypatch.setattr(places, "socket_folder", lambda: tmp_path)
    monkeypatch.setattr(cli_status, "TIMEOUT", 0.05)
    place = tmp_path / "shop" / "amqpworker" / "4711.sock"
    place.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as hanging:
        hanging.bind(str(place))
        hanging.listen()
        assert main(["workers", "--json"]) == 0
        (one,) = json.loads(capsys.readouterr().out)
        assert (one["pid"], one["service"], one["status"]) == (4711, "shop", "it does not respond")
        assert main(["workers"]) == 0
        assert "4711" in capsys.readouterr().out
        assert main(["status"]) == 2
        assert "did not respond within 0.05 s: it hangs" in capsys.readouterr().err
    assert main(["workers"]) == 0
    assert capsys.readouterr().out == "No pools are running on this machine.\n"


def test_the_status_shows_the_limit_of_each_run_and_who_is_beyond_it() -> None:
    recorder = Recorder(3)
    registered = [SimpleNamespace(name=f"t{number}", time_limit=its_limit) for number, its_limit in enumerate(LIMITS)]
    delivery: Any = None
    for slot, known in zip(recorder.slots, registered, strict=True):
        slot.mark_running(b"m-1", Run(known, delivery, "m-1", 1, 1000.0, 1000.0))
    fleet = Fleet({"main": 1}, lambda: 1.0, {"main": 60.0})
    fleet.tick(0.0)
    shown = (
        status_of(fleet, {1: Observation(4712, 0, read_recording(recorder.memory))}, History(), 1042.0, 42.0)
        .processes[0]
        .running
    )
    assert [(one.task, one.limit, one.over) for one in shown] == [
        ("t0", 0.0, 0.0),
        ("t1", 1060.0, 0.0),
        ("t2", 1030.0, 12.0),
    ]
    assert [limit(asdict(one)) for one in shown] == ["", "60 s", "30 s, over by 12 s"]


def test_a_run_is_overdue_a_minute_after_its_limit() -> None:
    recorder = Recorder(1)
    known: Any = SimpleNamespace(name="t", time_limit=TimeLimit(5))
    delivery: Any = None
    recorder.slots[0].mark_running(b"m-1", Run(known, delivery, "m-1", 1, 1000.0, 1000.0))
    recording = read_recording(recorder.memory)
    assert recording is not None
    assert [recording.has_overdue_task(now) for now in (1006.0, 1064.0, 1065.0)] == [False, False, True]
