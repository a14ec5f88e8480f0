"""Worker processes that never come so far as to consume: at import, in their lifespan, without a broker."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from amqpworker.testing import processes
from tests.cli import environment, run
from tests.pools import SHOP, Pool, pool
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
        assert stalled["reason"] == "it was not ready within 3 s"
        died = workers.wait_for("process_died")[0]
        assert (died["exit_status"], died["reason"]) == ("signal SIGKILL", stalled["reason"])
        assert 'shop.py", line' in workers.log
        workers.wait_for("process_started")
        workers.signal(signal.SIGTERM)
        assert workers.end() == 0


IMPORTS = """
def mark(text):
    with (HERE / "imports").open("a") as file:
        file.write(text)

mark("(")
time.sleep(0.5)
mark(")")
"""


@contextmanager
def one_core() -> Iterator[None]:
    """Have what is started meanwhile use a single core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def test_only_as_many_processes_start_at_once_as_there_are_cores(tmp_path: Path, vhost: Broker) -> None:
    with one_core(), pool(tmp_path, vhost.url, "-p", "3", more=IMPORTS) as workers:
        workers.wait_for("process_started", 3, timeout=60)
        assert (tmp_path / "imports").read_text() == "()()()"
        workers.signal(signal.SIGTERM)
        assert workers.end() == 0


def test_waiting_for_a_broker_does_not_count_as_starting(tmp_path: Path) -> None:
    (port,) = processes.free_ports(1)
    with pool(tmp_path, f"amqp://127.0.0.1:{port}/", "-p", "1", "--start-timeout", "4") as workers:
        waiting = workers.wait_for("worker_waiting", 1)[0]
        assert waiting["waits_for"] == f"the broker at 127.0.0.1:{port}"
        assert waiting["reason"] == f"Connection refused by 127.0.0.1:{port}."
        shown = run(tmp_path, environment(), "status", str(workers.process.pid))
        assert "waiting for the broker at 127.0.0.1" in shown.out, "which"
        assert "Connection refused" in shown.out, "and why"
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
        return int(connection.execute("SELECT count(*) FROM result_rows").fetchone()[0])
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


def test_a_memory_limit_below_what_the_app_needs_is_an_error_that_names_both_and_each_replacement_comes_later(
    tmp_path: Path, vhost: Broker
) -> None:
    with pool(tmp_path, vhost.url, "-p", "1", "--max-memory", "10", broker=vhost) as workers:
        first, second = workers.wait_for("max_memory_too_low", 2)
        assert (first["level"], first["limit"]) == ("error", "10 MiB")
        assert int(first["needed"].removesuffix(" MiB")) > 10
        assert 0 < first["retry_in"] < second["retry_in"]
        assert first["pid"] != second["pid"]
        assert len(workers.events("process_replaced")) == 1
        workers.send("slow", seconds=0, mark="a")
        wait_until(lambda: "end a" in workers.ledger(), 20, "a task in a process that is too large")
        workers.signal(signal.SIGTERM)
        assert workers.end() == 0


FLAGS = """
import os, sys
from pathlib import Path
from amqpworker import App

app = App()

@app.task(name="alone", queue="work", isolated=True)
def alone() -> None: ...

unbuffered = not hasattr(sys.stdout.buffer, "raw")
with Path(__file__).with_name("flags").open("a") as file:
    print(sys.flags.optimize, "error::FutureWarning" in sys.warnoptions, sys._xoptions, unbuffered, file=file)
"""


def test_options_of_the_interpreter_are_handed_on_to_worker_processes_and_isolated_ones(
    tmp_path: Path, vhost: Broker
) -> None:
    (tmp_path / "flagged.py").write_text(FLAGS)
    given = ["-O", "-W", "error::FutureWarning", "-X", "no_debug_ranges", "-u"]
    command = [sys.executable, *given, "-m", "amqpworker", "worker", "flagged:app", "-p", "1"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment(vhost.url), stdout=log, stderr=log)
    found = tmp_path / "flags"
    try:
        # The second is an isolated process, which is started ahead.
        wait_until(lambda: found.exists() and found.read_text().count("\n") == 2, 30, "two processes with the app")
        assert set(found.read_text().splitlines()) == {"1 True {'no_debug_ranges': True} True"}
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


def test_a_pool_whose_standard_input_output_and_error_are_closed_runs_like_any_other(
    tmp_path: Path, vhost: Broker
) -> None:
    (tmp_path / "shop.py").write_text(SHOP.format(url=vhost.url, drain=5.0))
    command = f'exec "{sys.executable}" -m amqpworker worker shop:app -p 1 <&- >&- 2>&-'
    process = subprocess.Popen(["/bin/sh", "-c", command], cwd=tmp_path, env=environment())
    closed = Pool(process, tmp_path, vhost)  # type: ignore[arg-type]
    try:
        closed.send("slow", seconds=0, mark="a")
        wait_until(lambda: "end a" in closed.ledger(), 30, "the end of a task")
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


def test_a_full_process_table_is_reported_without_a_traceback_and_a_pool_waits_for_room(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP.format(url="amqp://127.0.0.1:1/", drain=5.0))
    # The limit does not hold for the superuser; another user may not even read what is needed here.
    other = ["setpriv", "--reuid=65534", "--clear-groups", "--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    full = [*(other if os.geteuid() == 0 else []), "prlimit", "--nproc=1", sys.executable, "-m", "amqpworker", "worker"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([*full, "shop:app", "-p", "1"], cwd=tmp_path, env=environment(), stderr=log)
    workers = Pool(process, tmp_path)  # type: ignore[arg-type]
    try:
        workers.wait_for("process_not_started")
        workers.signal(signal.SIGTERM)
        assert workers.end() == 0
        for options, told in (
            ("--health 127.0.0.1:0", "no thread can be started"),
            ("--check", "Cannot start a process"),
        ):
            ended = subprocess.run(
                [*full, "shop:app", *options.split()], cwd=tmp_path, env=environment(), capture_output=True, check=False
            )
            (line,) = ended.stderr.decode().splitlines()
            assert told in line
            assert ended.returncode in {1, 2}
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in workers.log
