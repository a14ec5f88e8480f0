"""Time limits in real worker processes: what becomes of the task, of its neighbours, and of the process."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from amqpworker import App, Message
from amqpworker.model.message import new_id
from amqpworker.worker import main_thread
from tests.pools import Pool, pool
from tests.support import Broker, wait_until
from tests.workers import running

TASKS = """
import asyncio, logging
from amqpworker import current

def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False

def first(mark):
    # The first run notes its process; the second notes whether that is still there.
    file = HERE / mark
    if file.exists():
        note(f"again {mark}, {'beside' if alive(int(file.read_text())) else 'after'} the first")
        return False
    note(f"first {mark}, {current().time_left:.0f} s left")
    file.write_text(str(os.getpid()))
    return True

@app.task(name="shop.spins", queue="work", retry=None, time_limit=1)
def spins() -> None:
    note(f"{current().time_left:.0f} s left")
    while True:
        pass

@app.task(name="shop.reconnects", queue="work", retry=None, time_limit=1)
def reconnects() -> None:
    while True:
        try:
            time.sleep(0.01)
            raise ConnectionResetError
        except OSError:
            pass

@app.task(name="shop.logs", queue="work", retry=None, time_limit=1)
def logs() -> None:
    logger = logging.getLogger("shop")
    while True:
        logger.warning("a line")
        time.sleep(0.0001)

@app.task(name="shop.long", queue="work", time_limit=3600)
def long() -> None: ...

@app.task(name="shop.sleeps", queue="work", retry=[0], time_limit=1, hard_limit=2)
def sleeps() -> None:
    if first("sleeps"):
        time.sleep(600)

@app.task(name="shop.awaits", queue="work", retry=None, time_limit=1)
async def awaits() -> None:
    try:
        await asyncio.sleep(600)
    finally:
        note("cancelled")

@app.task(name="shop.hangs", queue="work", retry=None, hard_limit=1)
async def hangs() -> None:
    note("begin")
    await asyncio.sleep(600)

@app.task(name="shop.blocks", queue="work", retry=[0], time_limit=1, hard_limit=2)
async def blocks() -> None:
    if first("blocks"):
        time.sleep(600)

@app.task(name="shop.patient", queue="work", retry=[0])
def patient() -> None:
    if first("patient"):
        time.sleep(600)

@app.task(name="shop.alone", queue="work", retry=None, isolated=True)
def alone() -> None:
    note(f"{current().time_left:.0f} s left, {'the last' if current().last_attempt else 'more'}")
    time.sleep(600)
"""


def reason(workers: Pool) -> tuple[str, str]:
    """Return the reason and the traceback of the only dead letter."""
    assert workers.broker is not None
    letter = workers.broker.wait_for_message("work.dead")
    return letter.headers["aw-dead-reason"], letter.headers.get("aw-traceback", "")


def test_a_task_over_its_soft_limit_ends_as_its_retry_policy_has_it_with_the_reason(
    tmp_path: Path, vhost: Broker
) -> None:
    with pool(tmp_path, vhost.url, "-p", "1", "-t", "1", broker=vhost, more=TASKS) as workers:
        workers.send("spins")
        why, shown = reason(workers)
        assert why == "timeout"
        assert "in spins" in shown
        assert workers.ledger() == ["1 s left"]
        (warned,) = workers.events("limit_beyond_ack_timeout")
        assert (warned["task"], warned["limit"], warned["ack_timeout"]) == ("shop.long", 3600.0, 1800.0)
        workers.send("slow", seconds=0, mark="next")
        wait_until(lambda: "end next" in workers.ledger(), what="the same process continues")
        assert len(workers.events("process_started")) == 1


def test_neither_what_handles_network_errors_nor_the_log_sink_keeps_a_task_beyond_its_limit(
    tmp_path: Path, vhost: Broker
) -> None:
    with pool(tmp_path, vhost.url, "-p", "1", "-t", "2", broker=vhost, more=TASKS) as workers:
        for task in ("reconnects", "logs"):
            workers.send(task)
        letters = [vhost.wait_for_message("work.dead") for _ in range(2)]
        assert {(letter.properties.type, letter.headers["aw-dead-reason"]) for letter in letters} == {
            ("shop.reconnects", "timeout"),
            ("shop.logs", "timeout"),
        }
        workers.send("slow", seconds=0, mark="next")
        wait_until(lambda: "end next" in workers.ledger(), what="the same process continues, and logs")
        assert len(workers.events("process_started")) == 1


def test_a_process_gives_up_what_is_far_beyond_its_time_limit_when_its_supervisor_asks_for_that(
    app: App, vhost: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main_thread, "OVERDUE", main_thread.MAX_CLOCK_DIFFERENCE + 1.0)
    ours, theirs = socket.socketpair()
    go = threading.Event()
    ended: list[str] = []

    @app.task(name="shop.blocked", queue="work", retry=None, time_limit=0.2)
    def blocked() -> None:
        with ours:
            ours.recv(1)

    @app.task(name="shop.neighbour", queue="work", retry=None, time_limit=60)
    def neighbour() -> None:
        go.wait(30)
        ended.append("neighbour")

    with running(app, threads=2) as worker:
        worker.process.on_end_overdue()
        assert not worker.process.limits.overdue, "nothing is beyond its limit"
        blocked.send()
        neighbour.send()
        wait_until(lambda: worker.process.limits.beyond(1.0), what="a run is far beyond its limit")
        worker.process.on_end_overdue()
        worker.process.on_end_overdue()
        assert len(worker.process.limits.overdue) == 1
        wait_until(worker.process.settler.draining.is_set)
        neighbour.send()
        go.set()
        letter = vhost.wait_for_message("work.dead")
        assert (letter.properties.type, letter.headers["aw-dead-reason"]) == ("shop.blocked", "timeout")
        assert "ours.recv(1)" in letter.headers["aw-traceback"]
        assert "time_limit of 0.2 s" in letter.headers["aw-error"]
        assert ended == ["neighbour"]
    theirs.send(b"x")
    theirs.close()
    assert vhost.wait_for_message("work").properties.type == "shop.neighbour"


def test_a_coroutine_over_its_soft_limit_is_cancelled(tmp_path: Path, vhost: Broker) -> None:
    with pool(tmp_path, vhost.url, "-p", "1", "-t", "1", broker=vhost, more=TASKS) as workers:
        workers.send("awaits")
        assert reason(workers)[0] == "timeout"
        assert workers.ledger() == ["cancelled"]


def over_the_hard_limit(tmp_path: Path, vhost: Broker, task: str) -> None:
    """A task that nothing can stop beside others: they end in peace, and its message runs again once it is gone."""
    with pool(tmp_path, vhost.url, "-p", "1", "-t", "2", "--prefetch", "50", broker=vhost, more=TASKS) as workers:
        workers.wait_for("process_started")
        workers.send(task)
        wait_until(lambda: any(line.startswith(f"first {task}") for line in workers.ledger()))
        workers.send("slow", seconds=3, mark="neighbour")
        wait_until(lambda: "begin neighbour" in workers.ledger())
        for number in range(10):
            workers.send("slow", seconds=0.1, mark=f"waits {number}")
        wait_until(lambda: any(line.startswith("again") for line in workers.ledger()), what="its second run")
        wait_until(lambda: sum(line.startswith("end waits") for line in workers.ledger()) == 10)
        ledger = workers.ledger()
        assert f"first {task}, 1 s left" in ledger
        assert f"again {task}, after the first" in ledger
        assert len(ledger) == len(set(ledger)) == 2 + 2 + 20, "nothing ran twice but the task that was given up"
        assert "its hard limit" in workers.wait_for("worker_exiting")[0]["reason"]
        assert workers.wait_for("process_ended")[0]["exit_status"] == "exit code 0"
        assert len(workers.wait_for("process_started", 2)) == 2
        assert workers.events("process_died") == []
        retried = workers.wait_for("task_retried")[0]
        assert (retried["error"], retried["error_text"]) == (
            "TimeLimitExceeded",
            "the task has run for longer than its hard limit of 2 s",
        )


def test_a_task_over_its_hard_limit_is_given_up_with_its_process_and_its_neighbours_end_in_peace(
    tmp_path: Path, vhost: Broker
) -> None:
    over_the_hard_limit(tmp_path, vhost, "sleeps")


def test_a_coroutine_that_blocks_its_event_loop_over_its_hard_limit_is_given_up_as_well(
    tmp_path: Path, vhost: Broker
) -> None:
    over_the_hard_limit(tmp_path, vhost, "blocks")


def test_a_coroutine_that_awaits_over_its_hard_limit_ends_as_its_retry_policy_has_it_at_its_first_run(
    tmp_path: Path, vhost: Broker
) -> None:
    with pool(tmp_path, vhost.url, "-p", "1", broker=vhost, more=TASKS) as workers:
        workers.send("hangs")
        assert reason(workers)[0] == "timeout"
        workers.wait_for("process_started", 2)
        assert workers.ledger() == ["begin"]


def send_with_limits(broker: Broker, task: str) -> None:
    headers = {"aw-time-limit": 1, "aw-hard-limit": "1.5"}
    with App(broker.url) as app:
        app.queue("work")
        app.send(Message(f"shop.{task}", "work", b"{}", new_id(), headers))


def test_a_message_s_own_hard_limit_ends_the_process_of_a_task_without_one(tmp_path: Path, vhost: Broker) -> None:
    with pool(tmp_path, vhost.url, "-p", "1", "-t", "1", broker=vhost, more=TASKS) as workers:
        send_with_limits(vhost, "patient")
        wait_until(lambda: "again patient, after the first" in workers.ledger(), what="its second run")
        assert "first patient, 1 s left" in workers.ledger()
        assert "its hard limit of 1.5 s" in workers.wait_for("worker_exiting")[0]["reason"]
        assert workers.wait_for("process_ended")[0]["exit_status"] == "exit code 0"


def test_a_message_s_own_hard_limit_ends_an_isolated_process(tmp_path: Path, vhost: Broker) -> None:
    with pool(tmp_path, vhost.url, "-p", "1", "-t", "1", broker=vhost, more=TASKS) as workers:
        send_with_limits(vhost, "alone")
        assert reason(workers)[0] == "timeout"
        assert workers.ledger() == ["1 s left, the last"]
        assert "its hard limit of 1.5 s" in workers.wait_for("isolated_killed")[0]["reason"]
