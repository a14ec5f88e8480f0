"""What an app has around each of its worker processes."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.pools import pool
from tests.support import Broker, wait_until

SYNC = """
from contextlib import contextmanager

@contextmanager
def around():
    note("begin")
    made.append("a pool")
    yield
    note("end")
"""
ASYNC = """
import asyncio
from contextlib import asynccontextmanager

@asynccontextmanager
async def around():
    await asyncio.sleep(0)
    made.append(asyncio.get_running_loop())
    note("begin")
    yield
    note("end")
"""
TASKS = """
made = []
app.lifespan = around

@app.task(name="shop.uses", queue="work", retry=None)
def uses() -> None:
    note("uses" if made == ["a pool"] else f"finds {made}")

@app.task(name="shop.shares", queue="work", retry=None)
async def shares() -> None:
    note("uses" if made[0] is asyncio.get_running_loop() else "has another loop")
"""


@pytest.mark.parametrize(("text", "task"), [(SYNC, "uses"), (ASYNC, "shares")], ids=["sync", "async"])
def test_it_begins_before_the_first_task_and_ends_after_the_last(
    tmp_path: Path, vhost: Broker, text: str, task: str
) -> None:
    with pool(tmp_path, vhost.url, "-p", "1", "-t", "1", broker=vhost, more=text + TASKS) as workers:
        workers.wait_for("process_started")
        assert workers.ledger() == ["begin"]
        workers.send(task)
        wait_until(lambda: workers.ledger() == ["begin", "uses"])
        workers.send("slow", seconds=1, mark="x")
        wait_until(lambda: "begin x" in workers.ledger())
        workers.signal(signal.SIGTERM)
        assert workers.end() == 0
        assert workers.ledger() == ["begin", "uses", "begin x", "end x", "end"]


CLOSED = """
from contextlib import contextmanager
import threading

closed = threading.Event()
failed = threading.Event()

@contextmanager
def around():
    yield
    closed.set()
    failed.wait(60)

app.lifespan = around

@app.task(name="shop.uses", queue="work", retry=None)
def uses() -> None:
    note("begin")
    closed.wait(60)
    try:
        raise RuntimeError("the pool is closed")
    finally:
        failed.set()
"""


def test_a_task_that_is_abandoned_is_not_blamed_for_what_is_closed_under_it(tmp_path: Path, vhost: Broker) -> None:
    with pool(
        tmp_path, vhost.url, "-p", "1", "-t", "1", "--drain-timeout", "0.2", broker=vhost, more=CLOSED
    ) as workers:
        workers.send("uses")
        wait_until(lambda: workers.ledger() == ["begin"])
        workers.signal(signal.SIGTERM)
        assert workers.end() == 3
        assert vhost.wait_for_message("work").properties.type == "shop.uses"
        assert vhost.count("work.dead") == 0


LENT = """
import asyncio
from contextlib import asynccontextmanager

lent = []

@asynccontextmanager
async def around():
    yield
    while lent:
        await asyncio.sleep(0.01)
    note("all came back")

app.lifespan = around

@app.task(name="shop.borrows", queue="work", retry=None)
async def borrows() -> None:
    lent.append(1)
    note("lent")
    try:
        await asyncio.sleep(600)
    finally:
        lent.clear()
"""


def test_one_that_waits_for_what_it_has_lent_gets_it_back_from_tasks_that_are_abandoned(
    tmp_path: Path, vhost: Broker
) -> None:
    with pool(tmp_path, vhost.url, "-p", "1", "--drain-timeout", "0.2", broker=vhost, more=LENT) as workers:
        workers.send("borrows")
        wait_until(lambda: workers.ledger() == ["lent"])
        workers.signal(signal.SIGTERM)
        assert workers.end() == 3
        assert workers.ledger() == ["lent", "all came back"]


BLOCKED = """
import asyncio
from contextlib import asynccontextmanager

@asynccontextmanager
async def around():
    yield

app.lifespan = around

@app.task(name="shop.blocks", queue="work", retry=None)
async def blocks() -> None:
    note("begin")
    time.sleep(600)
"""


def test_one_whose_event_loop_is_held_up_by_a_task_is_not_waited_for(tmp_path: Path, vhost: Broker) -> None:
    with pool(tmp_path, vhost.url, "-p", "1", "--drain-timeout", "0.2", broker=vhost, more=BLOCKED) as workers:
        workers.send("blocks")
        wait_until(lambda: workers.ledger() == ["begin"])
        workers.signal(signal.SIGTERM)
        assert workers.end() == 3
        assert workers.events("process_killed") == []


FAILS_LATER = """
import asyncio
from contextlib import asynccontextmanager

async def watches():
    while not (HERE / "fail").exists():
        await asyncio.sleep(0.01)
    (HERE / "fail").unlink()
    raise RuntimeError("the feed has ended")

over = []

@asynccontextmanager
async def around():
    try:
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(watches())
            yield
            watching.cancel()
        note("end")
    finally:
        over.append(True)

app.lifespan = around
"""


def test_one_with_a_task_group_ends_well_and_where_the_group_fails_its_process_is_replaced(
    tmp_path: Path, vhost: Broker
) -> None:
    with pool(tmp_path, vhost.url, "-p", "1", broker=vhost, more=FAILS_LATER) as workers:
        workers.wait_for("process_started")
        (tmp_path / "fail").touch()
        workers.wait_for("process_started", 2)
        assert workers.ledger() == []
        assert len(workers.events("lifespan_lost")) == 1
        assert "RuntimeError: the feed has ended" in workers.log
        workers.signal(signal.SIGTERM)
        assert workers.end() == 0
        assert workers.ledger() == ["end"]


BROKEN = """
from contextlib import contextmanager

@contextmanager
def around():
    raise RuntimeError("the database is away")
    yield

app.lifespan = around
"""


def test_one_that_cannot_begin_is_the_failure_of_its_process_with_its_traceback(tmp_path: Path, vhost: Broker) -> None:
    with pool(tmp_path, vhost.url, "-p", "2", "-t", "1", broker=vhost, more=BROKEN) as workers:
        (died,) = workers.wait_for("process_died")[:1]
        assert (died["number"], died["exit_status"]) == (1, "exit code 1")
        assert "RuntimeError: the database is away" in workers.log
        workers.signal(signal.SIGTERM)
        assert workers.end() in {0, 1}


def test_a_lifespan_that_is_not_a_context_manager_is_refused_in_one_line(tmp_path: Path, vhost: Broker) -> None:
    with pool(tmp_path, vhost.url, "-p", "1", broker=vhost, more="\napp.lifespan = lambda: 42\n") as workers:
        assert workers.end() == 2
        assert workers.log.strip() == "amqpworker: App(lifespan=…) must return a context manager, but it returned 42."


ISOLATED = """
@app.task(name="shop.isolated", queue="work", retry=None, isolated=True)
def isolated() -> None:
    note(f"uses {os.getpid()}")
"""


def test_an_isolated_process_leaves_its_own_where_the_worker_ends(tmp_path: Path, vhost: Broker) -> None:
    text = SYNC.replace('"end"', 'f"end {os.getpid()}"')
    with pool(tmp_path, vhost.url, "-p", "1", "-t", "1", broker=vhost, more=text + TASKS + ISOLATED) as workers:
        workers.wait_for("process_started")
        workers.send("isolated")
        wait_until(lambda: "uses" in " ".join(workers.ledger()))
        (used,) = (line for line in workers.ledger() if line.startswith("uses"))
        workers.signal(signal.SIGTERM)
        assert workers.end() == 0
        assert workers.ledger().count(used.replace("uses", "end")) == 1


LOST_ALONE = """
@app.task(name="shop.feeds", queue="work", retry=None, isolated=True)
async def feeds() -> None:
    if not (HERE / "lost").exists():
        (HERE / "lost").touch()
        (HERE / f"fail {os.getpid()}").touch()
        while not over:
            await asyncio.sleep(0.01)
    note(f"ran {os.getpid()}")
"""


def test_an_isolated_process_whose_own_is_lost_runs_nothing_more(tmp_path: Path, vhost: Broker) -> None:
    text = FAILS_LATER.replace('"fail"', 'f"fail {os.getpid()}"') + LOST_ALONE
    with pool(tmp_path, vhost.url, "-p", "1", "-t", "1", broker=vhost, more=text) as workers:
        workers.wait_for("process_started")
        workers.send("feeds")
        workers.send("feeds")
        wait_until(lambda: sum(line.startswith("ran") for line in workers.ledger()) == 2)
        first, second = (line for line in workers.ledger() if line.startswith("ran"))
        assert first != second
        assert vhost.count("work.dead") == 0
        assert len(workers.events("lifespan_lost")) == 1
        assert workers.events("isolated_crashed") == workers.events("process_ended") == []
