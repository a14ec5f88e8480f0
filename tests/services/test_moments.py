"""Clients that disconnect, a refused login, a broker that is down, --reload."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.docs import ROOT
from tests.nodes import Node
from tests.services.conftest import LONG, REQUESTS, Backend
from tests.services.requests_load import CONCURRENT, RequestLoad
from tests.services.servers import FASTAPI, GUNICORN, SERVERS, UVICORN, Server, serving
from tests.support import Broker, wait_until

pytestmark = pytest.mark.timeout(300)

PROBE = "tests.services.probe:service"
LEAVING = 50  # clients
AWAY = {name: SERVERS[name] for name in (SERVERS if LONG else ("uvicorn", "gunicorn-gevent"))}


@pytest.fixture
def stopped(broker: Broker) -> Iterator[Node]:
    """The node of the broker, which is stopped; it runs again after the test."""
    broker.node.stop()
    yield broker.node
    broker.node.start()


def calls_of(server: Server) -> int:
    """Return how many calls wait for their reply."""
    return int(httpx.get(f"{server.url}/waiting").json()["calls"])


@pytest.mark.parametrize(
    ("command", "call_timeout"),
    [(UVICORN, "3"), (f"{GUNICORN} --worker-class asgi --asgi-disconnect-grace-period 1 --preload", "300")],
    ids=["calls that go on", "calls that are cancelled"],
)
def test_clients_that_leave_during_a_call_leave_nothing_behind(
    command: str, call_timeout: str, broker: Broker, tmp_path: Path
) -> None:
    with serving(command, PROBE, tmp_path, broker.url, AMQPWORKER_CALL_TIMEOUT=call_timeout) as server:
        address = httpx.URL(server.url)
        clients = [socket.create_connection((address.host, address.port)) for _ in range(LEAVING)]
        for client in clients:
            client.sendall(b"GET /prices/pen HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: calls_of(server) == LEAVING, what="each client waits for a call")
        for client in clients:
            client.close()
        wait_until(lambda: httpx.get(f"{server.url}/waiting").json() == {"calls": 0, "messages": 0}, 20)
        assert server.status("/ready") == 200
        assert httpx.post(f"{server.url}/users/42/welcome").status_code == 202
        server.terminate()
        assert "Traceback" not in server.log, server.log


@pytest.mark.parametrize("workers", ["", " --workers 2"])
def test_a_service_that_can_never_log_in_does_not_start_and_logs_the_reason(
    workers: str, broker: Broker, tmp_path: Path
) -> None:
    url = broker.url.replace("guest:guest", "guest:wrong")
    with (
        pytest.raises(AssertionError, match=r"AccessRefused: .* refused the login of user 'guest'") as ended,
        serving(f"uvicorn --port {{port}}{workers}", FASTAPI, tmp_path, url),
    ):
        pass
    assert "wrong" not in str(ended.value)


@pytest.mark.parametrize("command", AWAY.values(), ids=AWAY)
def test_a_service_whose_broker_is_away_starts_responds_to_each_request_and_ends(
    command: tuple[str, str], broker: Broker, stopped: Node, tmp_path: Path
) -> None:
    with (
        serving(*command, tmp_path, broker.url, AMQPWORKER_SEND_TIMEOUT="4", AMQPWORKER_CALL_TIMEOUT="4") as server,
        ThreadPoolExecutor(8) as clients,
    ):
        assert server.status("/ready") == 503
        stopped.start()
        wait_until(lambda: server.status("/ready") == 200, 30, "the service is ready")
        no_worker = httpx.get(f"{server.url}/prices/pen", timeout=30)
        assert (no_worker.status_code, no_worker.json()) == (504, {"detail": "no reply in time"})
        assert "no consumers" in server.log
        stopped.stop()
        waiting = [clients.submit(httpx.post, f"{server.url}/users/42/welcome", timeout=60) for _ in range(8)]
        wait_until(lambda: server.status("/ready") == 503, 30, "the service has lost its broker")
        assert server.terminate() == (0, set())
        assert {(one.result().status_code, one.result().json()["detail"]) for one in waiting} == {
            (503, "try again later")
        }
        assert "Traceback" not in server.log, server.log


def test_code_that_changes_is_served_by_uvicorn_while_requests_are_answered(backend: Backend, tmp_path: Path) -> None:
    (tmp_path / "examples").mkdir()
    for name in ("__init__.py", "tasks.py", "fastapi_service.py"):
        shutil.copy(ROOT / "examples" / name, tmp_path / "examples")
    command = f"{UVICORN} --loop asyncio --reload --reload-dir examples"
    with serving(command, FASTAPI, tmp_path, backend.broker.url) as server:
        assert server.status("/new") == 404
        with RequestLoad(server.url, CONCURRENT) as load:
            load.wait_for(REQUESTS // 2, "requests are answered")
            with (tmp_path / "examples/fastapi_service.py").open("a") as code:
                code.write('\n\n@service.get("/new")\nasync def new() -> None: ...\n')
            wait_until(lambda: server.status("/new") == 200, 30, "the new code is served")
            load.wait_for(REQUESTS // 2, "requests are answered by the new code")
        assert load.wrong == []
        backend.wait_for_runs(load.accepted)
        assert server.terminate() == (0, set())
        assert "Traceback" not in server.log, server.log
