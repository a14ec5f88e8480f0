"""Tasks that take their process down: the message is found, tried alone, and dead in the end; its neighbours run."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from amqpworker import App
from amqpworker.model.message import Message, new_id
from tests.pools import Pool, alive, pool
from tests.support import Broker, RawMessage, wait_until

POISONS = 10 if "SOAK_SECONDS" in os.environ else 3
"""`make long` has ten."""

TASKS = """
import asyncio

def die(how):
    if how == "exit":
        os._exit(7)
    if how == "crash":
        ctypes.string_at(0)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(30)

@app.task(name="shop.note", queue="work", retry=None)
def run(mark: str) -> None:
    note(mark)

@app.task(name="shop.poison", queue="work", retry=None)
def poison(how: str, mark: str = "poison") -> None:
    note(f"{mark} {os.getpid()}")
    die(how)

@app.task(name="shop.coroutine", queue="work", retry=None)
async def coroutine(how: str) -> None:
    note(f"poison {os.getpid()}")
    await asyncio.sleep(0)
    die(how)

@app.task(name="shop.once", queue="work", retry=None)
def once(mark: str) -> None:
    first = not (HERE / mark).exists()
    (HERE / mark).touch()
    note(f"{'begin' if first else 'again'} {mark} {os.getpid()}")
    while first and not (HERE / "go").exists():
        time.sleep(0.01)

@app.task(name="shop.alone", queue="work", retry=None, isolated=True, hard_limit=1)
def alone(mark: str, seconds: float = 0.0, how: str = "") -> None:
    note(f"{mark} {os.getpid()}")
    if how:
        die(how)
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))

@app.task(name="shop.long", queue="work", retry=None, isolated=True)
def long(mark: str) -> None:
    note(f"{mark} {os.getpid()}")
    while True:
        time.sleep(0.1)

@app.task(name="shop.awaited", queue="work", retry=None, isolated=True, time_limit=1)
async def awaited(mark: str) -> None:
    from amqpworker import current
    note(f"{current().task} {mark} {current().time_left > 0}")
    await asyncio.sleep(60)
"""

HOOKS = """
def hooked(*what):
    with (HERE / "hooks").open("a") as file:
        print(*what, file=file)

@app.on_retry
async def again(retried):
    hooked("again", retried.task, retried.error_type)

@app.on_dead
def died(letter):
    hooked("dead", letter.task, letter.reason)
"""


def pids(running: Pool, mark: str) -> list[int]:
    """Return the processes in which something ran, one for each time."""
    return [int(line.split()[-1]) for line in running.ledger() if line.rpartition(" ")[0] == mark]


def letter(running: Pool, timeout: float = 30.0) -> RawMessage:
    assert running.broker is not None
    return running.broker.wait_for_message("work.dead", timeout)


@pytest.mark.parametrize(
    ("task", "how", "told"),
    [
        ("poison", "crash", "signal SIGSEGV"),
        ("poison", "kill", "signal SIGKILL"),
        ("coroutine", "exit", "exit code 7"),
    ],
)
def test_what_takes_its_process_down_is_tried_alone_and_dies_with_the_evidence_while_neighbours_run(
    tmp_path: Path, vhost: Broker, task: str, how: str, told: str
) -> None:
    tasks = TASKS + HOOKS
    with pool(tmp_path, vhost.url, "-p", "2", "-t", "2", "--prefetch", "50", broker=vhost, more=tasks) as workers:
        workers.wait_for("process_started", 2)
        workers.send(task, how=how)
        for number in range(20):
            workers.send("note", mark=str(number))
        dead = letter(workers)
        assert dead.headers["aw-dead-reason"] == "crashed"
        assert dead.headers["aw-error-type"] == told
        assert dead.headers["aw-crashes"] == 3
        assert f"ended by {told}, after it had held up to" in dead.headers["aw-error"]
        assert "crash 3 of 3" in dead.headers["aw-error"]
        assert ("in die" in dead.headers.get("aw-traceback", "")) == (how == "crash")
        assert dead.headers["aw-worker"]
        wait_until(lambda: set(workers.ledger()) >= set(map(str, range(20))), what="its neighbours have run")
        ran = pids(workers, "poison")
        died = [line["pid"] for line in workers.events("process_died")]
        assert len(ran) == 4, "once in a worker, three times alone"
        assert died == ran[:1], "one worker died, of the first run"
        (noted,) = workers.events("suspects_noted")
        assert noted["pid"] == died[0]
        assert any(one.startswith(f"shop.{task} ") for one in noted["running"])
        assert workers.process.poll() is None
        hooks = [f"again shop.{task} {told}"] * 2 + [f"dead shop.{task} crashed"]
        wait_until(
            lambda: (tmp_path / "hooks").read_text().splitlines() == hooks, 5, "a hook is called after each crash"
        )


def test_no_exit_code_of_a_task_is_that_of_the_pool_neither_before_it_has_consumed_nor_while_it_drains(
    tmp_path: Path, vhost: Broker
) -> None:
    leaves = """
@app.task(name="shop.leaves", queue="work", retry=None)
def leaves(code: int, mark: str) -> None:
    note(f"leaves {os.getpid()}")
    while not (HERE / mark).exists():
        time.sleep(0.01)
    os._exit(code)
"""
    (tmp_path / "at-once").touch()
    Pool.send(Pool(None, tmp_path, vhost), "leaves", code=2, mark="at-once")  # type: ignore[arg-type]
    with pool(tmp_path, vhost.url, "-p", "1", "-t", "2", broker=vhost, more=TASKS + leaves) as workers:
        assert workers.wait_for("process_died")[0]["exit_status"] == "exit code 2"
        workers.wait_for("process_started", 2)
        assert workers.process.poll() is None
        workers.send("leaves", code=77, mark="later")
        wait_until(lambda: pids(workers, "leaves")[-1:] == workers.children()[-1:], 20, "the second message runs")
        workers.signal(signal.SIGTERM)
        workers.wait_for("worker_draining")
        (tmp_path / "later").touch()
        assert workers.end() == 3


def test_an_isolated_task_over_its_hard_limit_ends_alone(tmp_path: Path, vhost: Broker) -> None:
    with pool(tmp_path, vhost.url, "-p", "1", "-t", "2", broker=vhost, more=TASKS) as workers:
        workers.wait_for("process_started")
        workers.send("alone", mark="late", seconds=600)
        workers.send("slow", seconds=3, mark="neighbour")
        dead = letter(workers)
        assert dead.headers["aw-dead-reason"] == "timeout"
        assert "in alone" in dead.headers["aw-traceback"]
        (pid,) = pids(workers, "late")
        assert not alive(pid)
        wait_until(lambda: "end neighbour" in workers.ledger(), what="its neighbour ends in peace")
        assert workers.ledger().count("begin neighbour") == 1
        assert len(workers.events("process_started")) == 1
        assert workers.events("worker_exiting") == []


def test_isolated_tasks_share_a_process_until_it_dies(tmp_path: Path, vhost: Broker) -> None:
    with pool(tmp_path, vhost.url, "-p", "1", "-t", "1", broker=vhost, more=TASKS) as workers:
        (worker,) = (line["pid"] for line in workers.wait_for("process_started"))
        for mark in ("a", "b"):
            workers.send("alone", mark=mark)
        wait_until(lambda: pids(workers, "b"))
        assert pids(workers, "a") == pids(workers, "b") != [worker]
        workers.send("alone", mark="c", how="exit")
        dead = letter(workers)
        assert (dead.headers["aw-dead-reason"], dead.headers["aw-error-type"]) == ("crashed", "exit code 7")
        assert len(set(pids(workers, "c"))) == 3
        workers.send("note", mark="after")
        wait_until(lambda: "after" in workers.ledger())
        assert workers.events("process_died") == []


def test_an_isolated_coroutine_knows_its_run_and_keeps_its_time_limit(tmp_path: Path, vhost: Broker) -> None:
    with pool(tmp_path, vhost.url, "-p", "1", "-t", "1", broker=vhost, more=TASKS) as workers:
        workers.send("awaited", mark="m")
        assert letter(workers).headers["aw-dead-reason"] == "timeout"
        assert workers.ledger() == ["shop.awaited m True"]


def test_what_ran_in_a_killed_worker_runs_again_alone_and_is_blamed_for_nothing(tmp_path: Path, vhost: Broker) -> None:
    with pool(tmp_path, vhost.url, "-p", "2", "-t", "3", broker=vhost, more=TASKS) as workers:
        workers.wait_for("process_started", 2)
        for mark in ("x", "y", "z"):
            workers.send("once", mark=mark)
        wait_until(lambda: all(pids(workers, f"begin {mark}") for mark in "xyz"))
        (victim, *_) = pids(workers, "begin x")
        theirs = [mark for mark in "xyz" if pids(workers, f"begin {mark}") == [victim]]
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: all(pids(workers, f"again {mark}") for mark in theirs), what="they run again")
        for mark in theirs:
            assert not set(pids(workers, f"again {mark}")) & set(workers.children()), "in a process of its own"
        assert vhost.count("work.dead") == 0
        assert workers.events("task_retried") == []


def test_no_isolated_process_outlives_its_worker(tmp_path: Path, vhost: Broker) -> None:
    with pool(tmp_path, vhost.url, "-p", "1", "-t", "1", broker=vhost, more=TASKS) as workers:
        workers.wait_for("process_started")
        workers.send("long", mark="long")
        (pid,) = wait_until(lambda: pids(workers, "long"))
        os.kill(workers.children()[0], signal.SIGKILL)
        wait_until(lambda: not alive(pid), what="the end of the isolated process")


def test_an_isolated_task_that_is_abandoned_at_the_stop_goes_back_and_is_blamed_for_nothing(
    tmp_path: Path, vhost: Broker
) -> None:
    with pool(tmp_path, vhost.url, "-p", "1", "-t", "1", broker=vhost, drain=0.5, more=TASKS) as workers:
        workers.wait_for("process_started")
        workers.send("long", mark="long")
        (pid,) = wait_until(lambda: pids(workers, "long"))
        workers.signal(signal.SIGTERM)
        assert workers.end() == 3
        assert not alive(pid)
        message = vhost.wait_for_message("work")
        assert "aw-crashes" not in message.headers
        assert workers.events("isolated_crashed") == []


def test_poisons_among_a_hundred_times_as_many_innocents_are_all_that_is_dead(tmp_path: Path, vhost: Broker) -> None:
    count = POISONS * 101
    with pool(tmp_path, vhost.url, "-p", "2", "-t", "4", "--prefetch", "256", broker=vhost, more=TASKS) as workers:
        with App(vhost.url) as app:
            app.queue("work")
            poisons = {50 + 100 * number for number in range(POISONS)}
            app.send_many(
                Message("shop.poison", "work", b'{"how": "kill"}', f"p{number}")
                if number in poisons
                else Message("shop.note", "work", json.dumps({"mark": f"i{number}"}).encode(), new_id())
                for number in range(count)
            )
        began = time.monotonic()
        innocents = {f"i{number}" for number in range(count)} - {f"i{number}" for number in poisons}
        wait_until(lambda: set(workers.ledger()) >= innocents, 120, "all innocents have run")
        dead: dict[str, str] = {}
        # One may die twice: its worker was taken down by another before the first letter's original was acknowledged.
        while len(dead) < len(poisons):
            message = letter(workers, 120)
            dead[message.properties.message_id] = message.headers["aw-dead-reason"]
        assert dead == dict.fromkeys((f"p{number}" for number in poisons), "crashed")
        times = Counter(line for line in workers.ledger() if line in innocents)
        deaths = len(workers.events("process_died"))
        print(f"{time.monotonic() - began:.1f} s, {deaths} workers died", end=" ")
        print(f"{sum(count > 1 for count in times.values())} innocents ran twice")
        # Each death can lose the acknowledgement of a run that is over, and only a death can.
        assert max(times.values()) <= 1 + deaths
