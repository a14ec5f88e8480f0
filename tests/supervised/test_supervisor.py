"""The pool as a process: wrong input, signals, deaths of children and of the parent, a broker that comes late."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.cli import environment, run, started
from tests.nodes import Node
from tests.pools import SHOP, Pool, alive, pool, zombies_of
from tests.support import Broker, wait_until

# ---- what can never run -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "target", "told"),
    [
        ("", "none:app", "There is no module 'none'"),
        ("", "bad", "write MODULE:APP"),
        ("", "bad:app", "has no 'app'"),
        ("app = 3", "bad:app", "is of type int"),
        ("def broken(:", "bad:app", "cannot be imported: invalid syntax (bad.py, line 1)"),
        ("import not_installed", "bad:app", "cannot be imported: No module named 'not_installed'"),
        ("from amqpworker import App; app = App('http://x:hidden@y/')", "bad:app", "must begin with amqp://"),
        (
            "from amqpworker import App; app = App()",
            "bad:app",
            "Name the modules that define tasks in App(modules=['bad.tasks'",
        ),
        ("from amqpworker import App; app = App(modules=['gone'])", "bad:app", "'gone'"),
    ],
)
def test_an_app_that_cannot_run_is_one_line_and_exit_code_2(
    tmp_path: Path, source: str, target: str, told: str
) -> None:
    (tmp_path / "bad.py").write_text(source + "\n")
    ended = run(tmp_path, environment(), "worker", target, "-p", "3")
    assert told in ended.complaint()
    assert "hidden" not in ended.err
    assert (ended.code, ended.out) == (2, "")


def test_a_queue_that_the_app_does_not_name_is_one_line_with_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "mail.py").write_text("from amqpworker import App; app = App(); app.queue('emails')\n")
    ended = run(tmp_path, environment(), "worker", "mail:app", "-q", "emials")
    assert "The app has no queue 'emials': did you mean emails?" in ended.complaint()
    assert ended.code == 2


@pytest.mark.parametrize(
    ("source", "kind"), [("1/0", "ZeroDivisionError: division by zero"), ("import sys; sys.exit(0)", "SystemExit: 0")]
)
def test_an_error_inside_the_users_module_is_shown_once_with_its_traceback(
    tmp_path: Path, source: str, kind: str
) -> None:
    (tmp_path / "bad.py").write_text(source + "\n")
    ended = run(tmp_path, environment(), "worker", "bad:app", "-p", "3", "--no-log-json")
    assert ended.code == 2
    assert ended.err.count("Traceback") == 1
    assert 'bad.py", line 1' in ended.err
    assert ended.err.splitlines()[-1] == f"amqpworker: 'bad:app' cannot be imported: {kind}."


def test_the_parent_never_imports_the_users_module(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("import os; open('pids', 'a').write(f'{os.getpid()} '); 1/0\n")
    with started(tmp_path, environment(), "worker", "bad:app") as process:
        process.communicate(timeout=20)
    (child,) = (tmp_path / "pids").read_text().split()
    assert int(child) != process.pid


def test_a_refused_login_and_a_virtual_host_that_is_not_there_end_the_pool_with_one_line(
    tmp_path: Path, vhost: Broker
) -> None:
    for url, told in (
        (vhost.url.replace("guest:guest", "guest:wrong"), "refused the login of user 'guest'"),
        (f"{vhost.url}-not", "has no virtual host"),
    ):
        (tmp_path / "shop.py").write_text(SHOP.format(url=url, drain=1))
        ended = run(tmp_path, environment(), "worker", "shop:app", "-p", "3")
        assert told in ended.complaint()
        assert "wrong" not in ended.err
        assert ended.code == 2


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"AMQP\x00\x01\x00\x00"])
def test_a_port_of_another_server_ends_the_pool_with_one_line(tmp_path: Path, answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(8)
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        (tmp_path / "shop.py").write_text(SHOP.format(url=f"amqp://127.0.0.1:{port}/", drain=1))
        ended = run(tmp_path, environment(), "worker", "shop:app", "-p", "2")
        # Waking the thread that accepts.
        server.shutdown(socket.SHUT_RDWR)
    assert f"127.0.0.1:{port} does not speak AMQP 0-9-1" in ended.complaint()
    assert ended.code == 2


def test_a_queue_with_other_arguments_ends_the_pool_with_both_values(tmp_path: Path, vhost: Broker) -> None:
    vhost.declare_queue("work.dead", x_delivery_limit=5)
    (tmp_path / "shop.py").write_text(SHOP.format(url=vhost.url, drain=1))
    ended = run(tmp_path, environment(), "worker", "shop:app", "-p", "2", "--log-level", "error")
    assert "x-delivery-limit = '5'" in ended.complaint()
    assert "'2000000000'" in ended.err
    assert ended.code == 2


# ---- signals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_first_signal_lets_what_runs_end_and_requeues_the_rest(
    tmp_path: Path, vhost: Broker, number: signal.Signals
) -> None:
    with pool(tmp_path, vhost.url, "-p", "1", "-t", "1", "--prefetch", "10", broker=vhost) as workers:
        workers.wait_for("pool_started")
        for mark in "abc":
            workers.send("slow", seconds=30, mark=mark)
        wait_until(lambda: workers.ledger() == ["begin a"])
        workers.signal(number)
        vhost.wait_for_count("work", 2)
        (tmp_path / "go").touch()
        assert workers.end() == 0
        assert workers.ledger() == ["begin a", "end a"]
        vhost.wait_for_count("work", 2)
        assert "Traceback" not in workers.log


def test_a_second_ctrl_c_ends_at_once_with_exit_code_3(tmp_path: Path, vhost: Broker) -> None:
    with pool(tmp_path, vhost.url, "-p", "2", "-t", "1", broker=vhost) as workers:
        workers.wait_for("process_started", 2)
        workers.send("slow", seconds=60, mark="a")
        wait_until(lambda: workers.ledger() == ["begin a"])
        workers.signal(signal.SIGINT)
        workers.wait_for("worker_draining", 2)
        workers.signal(signal.SIGINT)
        assert workers.end(timeout=10) == 3
        vhost.wait_for_count("work", 1)
        assert "Traceback" not in workers.log


def test_a_drain_that_takes_too_long_is_given_up_with_exit_code_3(tmp_path: Path, vhost: Broker) -> None:
    with pool(tmp_path, vhost.url, "-p", "1", "-t", "1", "--drain-timeout", "0.3", broker=vhost) as workers:
        workers.wait_for("pool_started")
        workers.send("slow", seconds=60, mark="a")
        wait_until(lambda: workers.ledger() == ["begin a"])
        workers.signal(signal.SIGTERM)
        assert workers.end(timeout=10) == 3
        vhost.wait_for_count("work", 1)


def test_the_apps_own_drain_timeout_is_known_to_the_parent(tmp_path: Path, vhost: Broker) -> None:
    with pool(tmp_path, vhost.url, "-p", "1", broker=vhost, drain=77.0) as workers:
        workers.wait_for("pool_started")
        workers.signal(signal.SIGTERM)
        assert workers.end() == 0
        assert workers.events("supervisor_stopping")[0]["timeout"] == 77.0


def test_a_signal_while_the_app_is_being_imported_ends_the_pool_at_once(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import time; open('begun', 'w').close(); time.sleep(60)\n")
    with started(tmp_path, environment(), "worker", "slow:app", "-p", "2") as process:
        wait_until((tmp_path / "begun").exists)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
    assert process.returncode == 0
    assert "Traceback" not in err


# ---- deaths -----------------------------------------------------------------------------------------------------------


def test_a_killed_process_is_replaced_and_the_others_continue(tmp_path: Path, vhost: Broker) -> None:
    with pool(tmp_path, vhost.url, "-p", "2", broker=vhost) as workers:
        workers.wait_for("process_started", 2)
        first, second = workers.children()
        # A Ctrl-C in a terminal must not reach them: it goes to whole process groups.
        assert len({os.getpgid(pid) for pid in (first, second, workers.process.pid)}) == 3
        os.kill(first, signal.SIGKILL)
        third = workers.wait_for("process_started", 3)[2]
        assert third["number"] == 1
        died = workers.events("process_died")
        assert [(one["number"], one["exit_status"]) for one in died] == [(1, "signal SIGKILL")]
        assert alive(second)
        assert zombies_of(workers.process.pid) == []
        workers.signal(signal.SIGTERM)
        assert workers.end() == 0
        assert not any(alive(pid) for pid in workers.children())


def test_a_process_that_dies_before_it_ever_consumed_is_started_again_after_a_pause(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("import os; open('starts', 'a').write('x'); os.kill(os.getpid(), 9)\n")
    with (
        (tmp_path / "log").open("w") as log,
        started(tmp_path, environment(), "worker", "shop:app", "-p", "4", stdout=log, stderr=log) as process,
    ):
        died = Pool(process, tmp_path).wait_for("process_died", 2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    # One process alone, and each time twice as long: not four that spin.
    assert [one["number"] for one in died] == [1, 1]
    assert 0.8 <= died[0]["retry_in"] <= 1.2
    assert 1.6 <= died[1]["retry_in"] <= 2.4


def test_when_the_parent_is_killed_its_processes_drain_and_leave(tmp_path: Path, vhost: Broker) -> None:
    with pool(tmp_path, vhost.url, "-p", "2", "-t", "1", broker=vhost) as workers:
        workers.wait_for("process_started", 2)
        workers.send("slow", seconds=30, mark="a")
        wait_until(lambda: workers.ledger() == ["begin a"])
        workers.process.kill()
        workers.process.wait()
        workers.wait_for("supervisor_lost", 2)
        (tmp_path / "go").touch()
        wait_until(lambda: not any(alive(pid) for pid in workers.children()), 10)
        assert workers.ledger() == ["begin a", "end a"]
        # settled before it left
        vhost.wait_for_count("work", 0)


def test_orphans_of_tasks_are_reaped_where_the_pool_is_the_first_process(tmp_path: Path, vhost: Broker) -> None:
    # What a container gives to its first process, the kernel gives to any process that asks for it.
    code = (
        "import ctypes, sys; assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0;"
        "from amqpworker.cli.main import main; sys.exit(main(['worker', 'shop:app', '-p', '1']))"
    )
    (tmp_path / "shop.py").write_text(SHOP.format(url=vhost.url, drain=5))
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", code], cwd=tmp_path, env=environment(), stdout=log, stderr=log, text=True
        )
    try:
        workers = Pool(process, tmp_path, vhost)
        workers.wait_for("pool_started")
        workers.send("orphan")
        (orphan,) = wait_until(lambda: (tmp_path / "orphans").exists() and (tmp_path / "orphans").read_text().split())
        # the child that started it goes, and leaves the orphan to the pool
        os.kill(workers.children()[0], signal.SIGKILL)
        workers.wait_for("process_started", 2)
        wait_until(lambda: not Path(f"/proc/{orphan}").exists())
        assert zombies_of(process.pid) == []
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


# ---- a broker that comes late -----------------------------------------------------------------------------------------


def test_a_pool_waits_for_its_broker_and_logs_it(tmp_path: Path, spare_node: Node) -> None:
    spare_node.kill()
    try:
        with pool(tmp_path, spare_node.url(), "-p", "2") as workers:
            (waiting,) = workers.wait_for("worker_waiting")[:1]
            assert "Connection refused" in waiting["reason"]
            assert workers.events("pool_started") == []
            spare_node.start()
            workers.wait_for("process_started", 2, timeout=40)
            workers.signal(signal.SIGTERM)
            assert workers.end() == 0
    finally:
        spare_node.start()
