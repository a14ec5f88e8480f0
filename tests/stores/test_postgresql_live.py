"""A worker and its callers with results in PostgreSQL, against a real broker."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from amqpworker import App
from tests.cli import environment
from tests.stores.postgres_server import PostgresServer
from tests.support import Broker, wait_until
from tests.workers import running

QUEUE = "work"


@pytest.mark.parametrize("through", ["directly", "pgbouncer"])
def test_each_result_is_there_although_the_server_was_killed(
    vhost: Broker, make_app: Callable[..., App], postgres: PostgresServer, pgbouncer: int, database: str, through: str
) -> None:
    port = pgbouncer if through == "pgbouncer" else postgres.port
    app = make_app(results=f"postgresql://postgres@127.0.0.1:{port}/{database}")
    ran: list[int] = []

    @app.task(name="halve", queue=QUEUE)
    def halve(n: int) -> float:
        ran.append(n)
        return n / 2

    def store_answers() -> bool:
        store = app.store()
        return store is not None and store.check_writable() is None

    with running(app, threads=4):
        sent = app.send_many(halve.message(n) for n in range(400))
        assert sent[0].result(timeout=20) == 0.0
        wait_until(lambda: len(ran) > 40, what="some tasks have run")
        postgres.kill()
        postgres.start()
        wait_until(store_answers, timeout=30, what="the database answers again")
        assert [one.result(timeout=60) for one in sent] == [n / 2 for n in range(400)]
        vhost.wait_for_count(QUEUE, 0)


def test_a_result_is_returned_as_soon_as_it_is_stored(
    vhost: Broker, make_app: Callable[..., App], postgres: PostgresServer, database: str
) -> None:
    app = make_app(results=postgres.url(database))
    go = threading.Event()

    @app.task(name="hold", queue=QUEUE)
    def hold() -> int:
        go.wait(30)
        return 7

    with running(app, threads=1):
        sent = hold.send()
        threading.Timer(0.3, go.set).start()
        assert sent.result(timeout=20) == 7
        assert app.result(sent.id, timeout=20) == 7


def test_a_worker_without_the_table_that_it_may_not_create_does_not_start(
    vhost: Broker, postgres: PostgresServer, database: str, tmp_path: Path
) -> None:
    app = f"App({vhost.url!r}, results={postgres.url(database)!r})"
    (tmp_path / "bareshop.py").write_text(f"from amqpworker import App\napp = {app}\n@app.task\ndef nothing(): ...\n")
    command = [sys.executable, "-m", "amqpworker", "worker", "bareshop:app"]
    chosen = environment(AMQPWORKER_DECLARE="0")
    ended = subprocess.run(command, cwd=tmp_path, env=chosen, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert "run `amqpworker results init`" in ended.stderr
