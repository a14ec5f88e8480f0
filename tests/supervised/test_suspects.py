"""Which messages run in isolated processes, how many at once, and that one starts only for a delivery that is still ours."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from itertools import accumulate
from pathlib import Path
from typing import Any

import pika
import pytest

from amqpworker import App
from amqpworker.model.message import Message, new_id
from tests.cli import environment, run
from tests.pools import Pool, pool
from tests.support import Broker, wait_until

TASKS = """
def wait_for(name):
    while not (HERE / name).exists():
        time.sleep(0.005)

@app.task(name="shop.hold", queue="work", retry=None)
def hold(mark: str) -> None:
    note(f"begin {mark} {os.getpid()}")
    wait_for("go")
    note(f"end {mark} {os.getpid()}")

@app.task(name="shop.short", queue="work", retry=None)
def short(mark: str) -> None:
    note(f"begin {mark} {os.getpid()}")
    time.sleep(0.03)
    note(f"end {mark} {os.getpid()}")
"""

SLOW_TO_IMPORT = """
if "isolation/program" in sys.argv[0]:
    note(f"imports - {os.getpid()}")
    while not (HERE / "import").exists():
        time.sleep(0.005)
"""


def send(vhost: Broker, task: str, count: int) -> None:
    with App(vhost.url) as app:
        app.queue("work")
        app.send_many(
            Message(task, "work", json.dumps({"mark": f"{task[5:]}{number}"}).encode(), new_id())
            for number in range(count)
        )


def lines(workers: Pool, kind: str) -> list[tuple[str, int]]:
    """Return what began (or ended), and in which process."""
    found = [line.split() for line in workers.ledger()]
    return [(mark, int(pid)) for kind_of, mark, pid in found if kind_of == kind]


def isolated(workers: Pool) -> set[int]:
    """Return the isolated processes that have run something."""
    return {pid for _, pid in lines(workers, "begin")} - set(workers.children())


def standing(workers: Pool) -> dict[str, Any]:
    """Return what `amqpworker status` shows of the last process."""
    shown = run(workers.folder, environment(), "status", str(workers.process.pid), "--json").out
    process: dict[str, Any] = json.loads(shown)["processes"][-1]
    return process


def has_run(workers: Pool, marks: set[str], timeout: float = 60.0) -> None:
    wait_until(lambda: {mark for mark, _ in lines(workers, "end")} >= marks, timeout, "all of them have run")


def test_two_lost_connections_put_nothing_into_an_isolated_process(tmp_path: Path, vhost: Broker) -> None:
    with pool(tmp_path, vhost.url, "-p", "1", "-t", "8", "--prefetch", "60", broker=vhost, more=TASKS) as workers:
        workers.wait_for("process_started")
        send(vhost, "shop.hold", 60)
        wait_until(lambda: len(lines(workers, "begin")) == 8, what="eight have begun")
        for count in (2, 3):
            vhost.close_connections()
            workers.wait_for("queue_consuming", count)
            wait_until(lambda: vhost.count("work") == 0, what="all of them are here again")
        (tmp_path / "go").touch()
        has_run(workers, {f"hold{number}" for number in range(60)})
        assert isolated(workers) == set()
        assert vhost.count("work.dead") == 0
        assert workers.events("process_died") == []


def test_two_reloads_under_load_put_nothing_into_an_isolated_process(tmp_path: Path, vhost: Broker) -> None:
    with pool(tmp_path, vhost.url, "-p", "2", "-t", "4", "--prefetch", "200", broker=vhost, more=TASKS) as workers:
        workers.wait_for("process_started", 2)
        send(vhost, "shop.short", 1000)
        wait_until(lambda: lines(workers, "end"), what="they run")
        for reload in (1, 2):
            workers.signal(signal.SIGHUP)
            workers.wait_for("process_started", 2 + 2 * reload)
            workers.wait_for("process_ended", 2 * reload)
        has_run(workers, {f"short{number}" for number in range(1000)}, 120)
        assert isolated(workers) == set()
        assert workers.events("supervisor_unresponsive") == []
        assert vhost.count("work.dead") == 0


def test_thousands_of_messages_that_are_redelivered_at_once_are_all_decided(tmp_path: Path, vhost: Broker) -> None:
    with pool(tmp_path, vhost.url, "-p", "1", "-t", "4", "--prefetch", "5000", broker=vhost, more=TASKS) as workers:
        workers.wait_for("process_started")
        send(vhost, "shop.hold", 4000)
        wait_until(lambda: vhost.count("work") == 0, what="all of them are here")
        vhost.close_connections()
        workers.wait_for("queue_consuming", 2)
        wait_until(lambda: vhost.count("work") == 0, what="all of them are here again")
        (tmp_path / "go").touch()
        has_run(workers, {f"hold{number}" for number in range(4000)})
        assert isolated(workers) == set()
        assert workers.events("supervisor_unresponsive") == []


@pytest.mark.parametrize(
    ("options", "most"),
    [(("--max-suspects", "2", "--prefetch", "60"), 2), (("--max-suspects", "2"), 2), (("--prefetch", "60"), 4)],
    ids=["given", "given, with a prefetch that adapts", "default"],
)
def test_no_more_suspects_run_at_once_than_allowed_and_others_run_beside_them(
    tmp_path: Path, vhost: Broker, options: tuple[str, ...], most: int
) -> None:
    told = ("-p", "1", "-t", "8", *options)
    with pool(tmp_path, vhost.url, *told, broker=vhost, more=TASKS) as workers:
        workers.wait_for("process_started")
        send(vhost, "shop.hold", 8)
        wait_until(lambda: len(lines(workers, "begin")) == 8, what="all have begun")
        os.kill(workers.children()[0], signal.SIGKILL)
        workers.wait_for("process_started", 2)
        wait_until(lambda: len(lines(workers, "begin")) >= 8 + most, what="suspects have begun again")
        # As many threads as suspects leave them run what comes then.
        send(vhost, "shop.short", 40)
        has_run(workers, {f"short{number}" for number in range(40)})
        assert len(lines(workers, "begin")) == 8 + 40 + most, "the other suspects wait"
        # The process records them a few times per second, so that the first status may be from before the others waited.
        wait_until(
            lambda: (found := standing(workers))["isolated"] == most and found["waiting_suspects"] == 8 - most,
            what="the status shows those that run and those that wait",
        )
        (tmp_path / "go").touch()
        has_run(workers, {f"hold{number}" for number in range(8)})
        assert len(isolated(workers)) == most
        steps = [line.split() for line in workers.ledger() if int(line.split()[2]) in isolated(workers)]
        assert max(accumulate(1 if kind == "begin" else -1 for kind, *_ in steps)) == most
        assert set(Counter(mark for mark, _ in lines(workers, "end")).values()) == {1}
        assert vhost.count("work.dead") == 0


def test_suspects_that_wait_go_back_when_the_pool_stops(tmp_path: Path, vhost: Broker) -> None:
    with pool(tmp_path, vhost.url, "-p", "1", "-t", "4", "--max-suspects", "1", broker=vhost, more=TASKS) as workers:
        workers.wait_for("process_started")
        properties = pika.BasicProperties(type="shop.hold", headers={"aw-crashes": 1})
        for number in range(4):
            vhost.publish("amqpworker.tasks", "work", json.dumps({"mark": f"m{number}"}), properties)
        wait_until(lambda: lines(workers, "begin"), 20, "one has begun")
        workers.signal(signal.SIGTERM)
        vhost.wait_for_count("work", 3)
        (tmp_path / "go").touch()
        assert workers.end() == 0
        assert len(lines(workers, "begin")) == len(lines(workers, "end")) == 1


def test_an_isolated_run_whose_connection_was_lost_before_it_could_start_does_not_start(
    tmp_path: Path, vhost: Broker
) -> None:
    more = TASKS + SLOW_TO_IMPORT
    with pool(tmp_path, vhost.url, "-p", "1", "-t", "4", broker=vhost, more=more) as workers:
        workers.wait_for("process_started")
        properties = pika.BasicProperties(type="shop.short", message_id="m", headers={"aw-crashes": 1})
        vhost.publish("amqpworker.tasks", "work", b'{"mark": "m"}', properties)
        wait_until(lambda: lines(workers, "imports"), what="its isolated process starts")
        vhost.close_connections()
        workers.wait_for("queue_consuming", 2)
        wait_until(lambda: len(lines(workers, "imports")) == 2, what="another starts for the second delivery")
        (tmp_path / "import").touch()
        has_run(workers, {"m"})
        workers.signal(signal.SIGTERM)
        assert workers.end() == 0
        assert [mark for mark, _ in lines(workers, "begin")] == ["m"]
        assert vhost.count("work") == 0
