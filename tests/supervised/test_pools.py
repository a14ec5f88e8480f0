"""Several pools in one program, and queues with threads of their own."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from amqpworker import App
from amqpworker.model.message import Message, new_id
from tests.cli import environment, run
from tests.pools import Pool, alive, pool
from tests.support import Broker, wait_until

POST = """

@app.task(name="shop.email", queue="emails", retry=None)
def email(mark: str) -> None:
    note(f"email {mark}")

@app.task(name="shop.report", queue="reports", retry=None)
def report(mark: str) -> None:
    note(f"report {mark}")
    while not (HERE / "go").exists():
        time.sleep(0.01)
"""

OTHER = """
import os
from pathlib import Path
from amqpworker import App

app = App({url!r})

@app.task(name="other.note", queue="others", retry=None)
def note(mark: str) -> None:
    with (Path(__file__).parent / "ledger").open("a") as ledger:
        ledger.write(f"other {{mark}} {{os.getpid()}}\\n")
"""

TWO = """
health = "{health}"
log_level = "info"

[[pools]]
name = "mail"
app = "shop:app"
processes = {processes}
queues = ["work", {{ name = "emails", threads = 2 }}, {{ name = "reports", threads = 1, prefetch = 2 }}]

[[pools]]
name = "other"
app = "other:app"
processes = 1
threads = 2
"""


def send(broker: Broker, queue: str, task: str, **values: Any) -> None:
    with App(broker.url) as app:
        app.queue(queue)
        app.send(Message(task, queue, json.dumps(values).encode(), new_id()))


def emails_in(workers: Pool) -> list[str]:
    return [line for line in workers.ledger() if line.startswith("email ")]


def pids(workers: Pool, name: str) -> list[int]:
    return [line["pid"] for line in workers.events("process_started") if line["pool"] == name]


def test_a_long_task_of_one_queue_never_holds_back_another_with_threads_of_its_own(
    tmp_path: Path, vhost: Broker
) -> None:
    queues = ("-q", "reports:1,prefetch=5", "-q", "emails:2", "-q", "work")
    with pool(tmp_path, vhost.url, "-p", "1", "-t", "1", *queues, broker=vhost, more=POST) as workers:
        workers.wait_for("pool_started")
        for number in range(4):
            send(vhost, "reports", "shop.report", mark=str(number))
        wait_until(lambda: "report 0" in workers.ledger())
        workers.send("slow", seconds=60, mark="x")
        wait_until(lambda: "begin x" in workers.ledger())
        for number in range(20):
            send(vhost, "emails", "shop.email", mark=str(number))
        wait_until(lambda: len(emails_in(workers)) == 20)
        assert [line for line in workers.ledger() if "report" in line] == ["report 0"], "one thread, one report"
        (tmp_path / "go").touch()
        wait_until(lambda: len([line for line in workers.ledger() if "report" in line]) == 4)
        workers.signal(signal.SIGTERM)
        assert workers.end() == 0
        for queue in ("emails", "reports", "work"):
            vhost.wait_for_count(queue, 0)


def test_what_waits_for_the_threads_of_a_queue_goes_back_when_the_pool_stops(tmp_path: Path, vhost: Broker) -> None:
    with pool(tmp_path, vhost.url, "-p", "1", "-q", "reports:1", "-q", "emails", broker=vhost, more=POST) as workers:
        workers.wait_for("pool_started")
        for number in range(3):
            send(vhost, "reports", "shop.report", mark=str(number))
        wait_until(lambda: workers.ledger() == ["report 0"])
        workers.signal(signal.SIGTERM)
        vhost.wait_for_count("reports", 2)
        (tmp_path / "go").touch()
        assert workers.end() == 0
        assert workers.ledger() == ["report 0"]


def test_two_pools_of_two_apps_run_in_one_program_and_a_death_in_one_does_not_touch_the_other(
    tmp_path: Path, vhost: Broker
) -> None:
    where = str(tmp_path / "health.sock")
    file = tmp_path / "pools.toml"
    file.write_text(TWO.format(health=where, processes=2))
    (tmp_path / "other.py").write_text(OTHER.format(url=vhost.url))
    with pool(tmp_path, vhost.url, "--config", "pools.toml", broker=vhost, more=POST, target=None) as workers:
        workers.wait_for("process_started", 3)
        (other,), mail = pids(workers, "other"), pids(workers, "mail")
        assert len(mail) == 2
        send(vhost, "others", "other.note", mark="x")
        send(vhost, "emails", "shop.email", mark="y")
        wait_until(lambda: sorted(workers.ledger()) == ["email y", f"other x {other}"])

        pid = str(workers.process.pid)
        shown = run(tmp_path, environment(), "status", pid).out
        assert "mail (shop:app): 2/2 consuming" in shown
        assert "other (other:app): 1/1 consuming" in shown
        listed = next(
            one for one in run(tmp_path, environment(), "workers", "--json").json if one["pid"] == workers.process.pid
        )
        assert listed["pools"] == [
            {"name": "mail", "wanted": 2, "consuming": 2, "app": "shop:app"},
            {"name": "other", "wanted": 1, "consuming": 1, "app": "other:app"},
        ]
        found = run(tmp_path, environment(), "workers").out
        assert "mail (shop:app)" in found
        assert "other (other:app)" in found

        os.kill(other, signal.SIGKILL)
        workers.wait_for("process_started", 4)
        assert [(one["pool"], one["exit_status"]) for one in workers.events("process_died")] == [
            ("other", "signal SIGKILL")
        ]
        assert all(alive(one) for one in mail)
        successor = pids(workers, "other")[1]
        send(vhost, "others", "other.note", mark="z")
        wait_until(lambda: f"other z {successor}" in workers.ledger())

        # A reload takes new code, not new numbers.
        file.write_text(TWO.format(health=where, processes=3))
        workers.signal(signal.SIGHUP)
        workers.wait_for("process_started", 7)
        wait_until(lambda: not any(alive(one) for one in (*mail, successor)))
        stands = run(tmp_path, environment(), "status", where, "--json").json
        assert [(one["name"], one["wanted"]) for one in stands["pools"]] == [("mail", 2), ("other", 1)]
        assert {one["generation"] for one in stands["processes"]} == {2}
        workers.signal(signal.SIGTERM)
        assert workers.end() == 0
        assert "Traceback" not in workers.log


def test_the_app_of_a_pool_may_come_from_the_environment(
    tmp_path: Path, vhost: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pools.toml").write_text('[[pools]]\nname = "mail"\nprocesses = 1\n')
    monkeypatch.setenv("AMQPWORKER_APP", "shop:app")
    with pool(tmp_path, vhost.url, "--config", "pools.toml", broker=vhost, target=None) as workers:
        workers.wait_for("pool_started")
        workers.signal(signal.SIGTERM)
        assert workers.end() == 0


def test_new_code_that_lacks_a_queue_of_the_file_leaves_the_old_processes_running(
    tmp_path: Path, vhost: Broker
) -> None:
    (tmp_path / "pools.toml").write_text(
        '[[pools]]\nname = "mail"\napp = "shop:app"\nprocesses = 1\nqueues = ["work", "reports"]\n'
    )
    with pool(tmp_path, vhost.url, "--config", "pools.toml", broker=vhost, more=POST, target=None) as workers:
        workers.wait_for("pool_started")
        source = tmp_path / "shop.py"
        source.write_text(source.read_text().replace('"reports"', '"papers"'))
        workers.signal(signal.SIGHUP)
        (failed,) = workers.wait_for("reload_failed")
        assert "The app has no queue 'reports'" in failed["reason"]
        workers.send("slow", seconds=0, mark="x")
        wait_until(lambda: "end x" in workers.ledger())
        workers.signal(signal.SIGTERM)
        assert workers.end() == 0


def test_a_prefetch_below_the_threads_of_its_queue_is_a_warning(tmp_path: Path, vhost: Broker) -> None:
    queues = ("-q", "reports:4,prefetch=2", "-q", "emails:2")
    with pool(tmp_path, vhost.url, "-p", "1", *queues, broker=vhost, more=POST) as workers:
        workers.wait_for("pool_started")
        (warning,) = workers.events("prefetch_below_threads")
        assert (warning["queue"], warning["prefetch"], warning["threads"]) == ("reports", 2, 4)
        workers.signal(signal.SIGTERM)
        assert workers.end() == 0


SPOIL = """

@app.task(name="shop.spoil", queue="work", retry=None)
def spoil() -> None:
    mine = [line for line in Path("/proc/self/maps").read_text().splitlines() if "memfd:amqpworker" in line]
    once = HERE / "spoilt"
    if not once.exists():
        once.touch()
        begin, end = (int(one, 16) for one in mine[0].split()[0].split("-"))
        ctypes.memset(begin, 0xFF, end - begin)
"""


def test_a_process_whose_recording_cannot_be_read_is_replaced(tmp_path: Path, vhost: Broker) -> None:
    with pool(tmp_path, vhost.url, "-p", "1", broker=vhost, more=SPOIL) as workers:
        workers.wait_for("process_started")
        workers.send("spoil")
        (stalled,) = workers.wait_for("process_stalled")
        assert stalled["reason"] == "its recording cannot be read"
        workers.wait_for("process_started", 2)
        workers.send("slow", seconds=0, mark="x")
        wait_until(lambda: "end x" in workers.ledger())
        workers.signal(signal.SIGTERM)
        assert workers.end() == 0


# ---- bad input --------------------------------------------------------------------------------------------------------

GOOD = "from amqpworker import App\napp = App()\n@app.task(queue='emails')\ndef send() -> None: ...\n"


@pytest.mark.parametrize("more", [(), ("--check",)], ids=["run", "check"])
@pytest.mark.parametrize(
    ("source", "target", "queues", "told"),
    [
        (GOOD, "none:app", 'queues = ["emails"]', "There is no module 'none'"),
        (GOOD, "mail", 'queues = ["emails"]', "'mail' does not name an app: write MODULE:APP"),
        ("", "mail:app", 'queues = ["emails"]', "Module 'mail' has no 'app'"),
        ("app = 3", "mail:app", 'queues = ["emails"]', "'mail:app' is of type int"),
        ("def broken(:", "mail:app", 'queues = ["emails"]', "Module 'mail' cannot be imported: invalid syntax"),
        (GOOD, "mail:app", 'queues = ["emials"]', "The app has no queue 'emials': did you mean emails?"),
        (
            "from amqpworker import App\napp = App()",
            "mail:app",
            "",
            "has no tasks: each message would be dead-lettered",
        ),
        ("from amqpworker import App\napp = App('http://x/')", "mail:app", "", "must begin with amqp://"),
    ],
)
def test_a_pool_of_a_file_that_can_never_run_is_one_line_and_exit_code_2(
    tmp_path: Path, source: str, target: str, queues: str, told: str, more: tuple[str, ...]
) -> None:
    (tmp_path / "mail.py").write_text(source)
    (tmp_path / "pools.toml").write_text(f'[[pools]]\nname = "mail"\napp = "{target}"\n{queues}\n')
    ended = run(tmp_path, environment(), "worker", "--config", "pools.toml", *more)
    assert told in ended.complaint()
    assert (ended.code, ended.out) == (2, "")


@pytest.mark.parametrize("more", [(), ("--check",)], ids=["run", "check"])
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("--config none.toml", "none.toml: cannot be read: No such file or directory."),
        ("--config bad.toml", "bad.toml: pool 'a', threads: must be greater than or equal to 1, got 0."),
        ("mail:app --health nowhere", "--health: give HOST:PORT"),
        ("mail:app -q emails:0", "--queue emails:0: threads must be greater than or equal to 1, got 0."),
        ("mail:app -q emails:2 -q emails", "--queue: queue 'emails' is named twice."),
        ("mail:app -q emails:6000 -q b:6000", "--threads: 12000 threads per process are too many"),
        ("mail:app -q", "Option '-q' requires an argument"),
        ("mail:app --config bad.toml", "MODULE:APP cannot be used with --config"),
        ("--config bad.toml -t 4 -q emails", "--queue, --threads cannot be used with --config"),
        ("", "Missing argument 'MODULE:APP'"),
    ],
)
def test_options_that_cannot_be_are_one_line_and_exit_code_2(
    tmp_path: Path, options: str, told: str, more: tuple[str, ...]
) -> None:
    (tmp_path / "mail.py").write_text(GOOD)
    (tmp_path / "bad.toml").write_text('[[pools]]\nname = "a"\napp = "mail:app"\nthreads = 0\n')
    ended = run(tmp_path, environment(), "worker", *more, *options.split())
    assert told in ended.complaint()
    assert (ended.code, ended.out) == (2, "")


def test_a_health_port_that_is_taken_is_one_line_and_exit_code_1_since_it_may_be_free_soon(tmp_path: Path) -> None:
    (tmp_path / "mail.py").write_text(GOOD)
    with socket.create_server(("127.0.0.1", 0)) as server:
        where = f"127.0.0.1:{server.getsockname()[1]}"
        ended = run(tmp_path, environment(), "worker", "mail:app", "--health", where)
    assert ended.complaint() == f"health {where}: cannot listen there: Address already in use."
    assert ended.code == 1
