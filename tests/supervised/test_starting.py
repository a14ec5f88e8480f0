"""Worker processes that never come so far as to consume: at import, in their lifespan, without a broker."""

from __future__ import annotations

import signal
import socket
import sqlite3
import threading
from contextlib import closing, suppress
from pathlib import Path

import pytest

from amqpworker.testing import processes
from tests.cli import environment, run
from tests.pools import pool
from tests.support import Broker, wait_until

ONCE = """
def first():
    if (HERE / "once").exists():
        return False
    (HERE / "once").touch()
    return True
"""
HANGS = {
    "in a call that waits": ONCE + "\nif first(): time.sleep(600)\n",
    "in C, with the interpreter's lock": ONCE + "\nif first(): ctypes.PyDLL(None).sleep(600)\n",
    "in its lifespan": ONCE
    + """
from contextlib import asynccontextmanager

@asynccontextmanager
async def around():
    if first():
        time.sleep(600)
    yield

app.lifespan = around
""",
}


@pytest.mark.parametrize("hang", HANGS.values(), ids=HANGS.keys())
def test_a_process_that_hangs_before_it_is_ready_is_killed_with_its_stacks_and_started_again(
    tmp_path: Path, vhost: Broker, hang: str
) -> None:
    with pool(tmp_path, vhost.url, "-p", "1", "--start-timeout", "3", broker=vhost, more=hang) as workers:
        stalled = workers.wait_for("process_stalled")[0]
        assert stalled["what"] == "it was not ready within 3 s"
        died = workers.wait_for("process_died")[0]
        assert (died["how"], died["reason"]) == ("signal SIGKILL", stalled["what"])
        assert 'shop.py", line' in workers.log
        workers.wait_for("process_started")
        workers.signal(signal.SIGTERM)
        assert workers.end() == 0


def test_waiting_for_a_broker_does_not_count_as_starting(tmp_path: Path) -> None:
    (port,) = processes.free_ports(1)
    with pool(tmp_path, f"amqp://127.0.0.1:{port}/", "-p", "1", "--start-timeout", "4") as workers:
        waiting = workers.wait_for("worker_waiting", 1)[0]
        assert waiting["waits_for"] == f"the broker at 127.0.0.1:{port}"
        assert waiting["reason"] == f"Nothing listens at 127.0.0.1:{port}: is RabbitMQ running?"
        shown = run(tmp_path, environment(), "status", str(workers.process.pid))
        assert "waiting for the broker at 127.0.0.1" in shown.out, "which"
        assert "is RabbitMQ running?" in shown.out, "and why"
        assert workers.events("process_stalled") == []
        workers.signal(signal.SIGTERM)
        assert workers.end() == 0


def test_a_pool_waits_for_a_broker_behind_a_proxy_that_ends_each_tls_handshake(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:

        def serve() -> None:
            while True:
                try:
                    client, _ = proxy.accept()
                except OSError:
                    return
                client.recv(65536)  # all of it: an end, and no reset
                client.close()

        threading.Thread(target=serve, daemon=True).start()
        url = f"amqps://127.0.0.1:{proxy.getsockname()[1]}/"
        with pool(tmp_path, url, "-p", "1") as workers:
            waiting = workers.wait_for("worker_waiting", 1)[0]
            assert "is RabbitMQ running behind it?" in waiting["reason"]
            assert workers.events("process_died") == []
            workers.signal(signal.SIGTERM)
            assert workers.end() == 0
        proxy.shutdown(socket.SHUT_RDWR)


def stored(file: Path) -> int:
    """Return how many results a file holds."""
    with closing(sqlite3.connect(file)) as connection, suppress(sqlite3.OperationalError):
        return int(connection.execute("SELECT count(*) FROM results").fetchone()[0])
    return 0


def test_a_pool_starts_while_another_program_holds_its_file_of_results_and_stores_them_afterwards(
    tmp_path: Path, vhost: Broker
) -> None:
    file = tmp_path / "results.db"
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pool(
            tmp_path, vhost.url, "-p", "1", broker=vhost, more=f"\napp.results = 'sqlite:///{file}'\n"
        ) as workers:
            workers.wait_for("queue_consuming")
            other.execute("ROLLBACK")
            workers.send("slow", seconds=0, mark="a")
            wait_until(lambda: stored(file), 30)
            workers.signal(signal.SIGTERM)
            assert workers.end() == 0


def test_an_app_that_cannot_be_imported_while_another_service_is_away_is_imported_again(
    tmp_path: Path, vhost: Broker
) -> None:
    away = ONCE + "\nif first(): raise ConnectionRefusedError('the database is away')\n"
    with pool(tmp_path, vhost.url, "-p", "1", broker=vhost, more=away) as workers:
        workers.wait_for("queue_consuming")
        assert len(workers.events("app_not_imported")) == 1
        workers.signal(signal.SIGTERM)
        assert workers.end() == 0


def test_a_result_file_that_is_locked_at_the_start_is_in_the_log_and_the_pool_consumes(
    tmp_path: Path, vhost: Broker
) -> None:
    path = tmp_path / "kept.db"
    more = f"\napp = App({vhost.url!r}, results={f'sqlite:///{path}'!r})\napp.task(name='t', queue='work')(lambda: 1)\n"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pool(tmp_path, vhost.url, "-p", "1", more=more) as workers:
            (told,) = workers.wait_for("results_unavailable")
            assert "another process keeps the file locked" in told["reason"]
            workers.wait_for("queue_consuming")
            other.execute("ROLLBACK")
            workers.signal(signal.SIGTERM)
            assert workers.end() == 0
