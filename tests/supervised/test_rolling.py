"""Two releases of one app at once, as during a rolling deploy: under load, in both orders, and no message is dead."""

from __future__ import annotations

import importlib.util
import itertools
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import pika

from amqpworker.cli.status_command import get_status
from amqpworker.model.headers import now_text
from tests.pools import SHOP, Pool, pool
from tests.support import Broker, wait_until

# Both releases have a task that stays as it is. The new one renames a parameter, adds one, and adds tasks.
OLD = """
@app.task(name="shop.steady", queue="work")
def steady(number: int) -> None:
    note(f"steady {number} old")

@app.task(name="shop.welcome", queue="work")
def welcome(number: int, uid: int) -> None:
    note(f"welcome {number} {uid}")

@app.task(name="shop.report", queue="work")
async def report(number: int) -> None:
    note(f"report {number} en")

CALLS = {
    "steady": lambda number: steady.message(number),
    "welcome": lambda number: welcome.message(number, uid=number),
    "report": lambda number: report.message(number),
}
"""
NEW = """
@app.task(name="shop.steady", queue="work")
def steady(number: int) -> None:
    note(f"steady {number} new")

def renamed(version: int, arguments: dict[str, object]) -> dict[str, object]:
    assert version == 1, version
    return {"number": arguments["number"], "user_id": arguments["uid"]}

@app.task(name="shop.welcome", queue="work", version=2, upgrade=renamed)
def welcome(number: int, user_id: int) -> None:
    note(f"welcome {number} {user_id}")

@app.task(name="shop.report", queue="work")
async def report(number: int, lang: str = "en") -> None:
    note(f"report {number} {lang}")

@app.task(name="shop.added", queue="work", retry=[0.125])
def added(number: int) -> None:
    from amqpworker import current
    if current().attempt == 1:
        raise ValueError(number)
    note(f"added {number}")

CALLS = {
    "steady": lambda number: steady.message(number),
    "welcome": lambda number: welcome.message(number, user_id=number),
    "report": lambda number: report.message(number, lang="fr"),
    "added": lambda number: added.message(number),
}
"""
NUMBERS = itertools.count()


class Sender:
    """Sends a message of each of a release's tasks, again and again, as a service does; `sent` are their numbers, by task."""

    def __init__(self, release: ModuleType) -> None:
        self._release = release
        self._stop = threading.Event()
        self.failure: BaseException | None = None
        self.sent: dict[str, list[int]] = {task: [] for task in release.CALLS}
        self._thread = threading.Thread(target=self._run, name="sender")

    def _run(self) -> None:
        try:
            while not self._stop.wait(0.01):
                for task, message_of in self._release.CALLS.items():
                    number = next(NUMBERS)
                    self._release.app.send(message_of(number))
                    self.sent[task].append(number)
        except BaseException as error:  # the test reports it
            self.failure = error

    @property
    def total(self) -> int:
        return sum(map(len, self.sent.values()))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Send no more, and close the app; a second time does nothing."""
        self._stop.set()
        self._thread.join()
        self._release.app.close()
        assert self.failure is None


@contextmanager
def workers(folder: Path, broker: Broker, code: str, *options: str) -> Iterator[Pool]:
    """Run the workers of one release, which write what they ran."""
    folder.mkdir()
    with pool(folder, broker.url, "-p", "1", "-t", "4", *options, broker=broker, more=code) as running:
        running.wait_for("process_started")
        yield running


def released(folder: Path, broker: Broker, code: str) -> ModuleType:
    """Return a release as a service has it that only sends."""
    folder.mkdir()
    path = folder / f"{folder.name}_shop.py"
    path.write_text(SHOP.format(url=broker.url, drain=20.0) + code)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def end(running: Pool) -> None:
    running.signal(signal.SIGTERM)
    assert running.end(30) == 0


def ran(*pools: Pool) -> Counter[str]:
    """Return what tasks noted, without which release it was."""
    lines = itertools.chain.from_iterable(each.ledger() for each in pools)
    return Counter(line.removesuffix(" old").removesuffix(" new") for line in lines)


def expected(old: Sender, new: Sender) -> Counter[str]:
    """Return what the tasks of all messages note, each once."""
    found = [f"report {number} en" for number in old.sent["report"]]
    found += [f"report {number} fr" for number in new.sent["report"]]
    found += [f"added {number}" for number in new.sent["added"]]
    for sender in (old, new):
        found += [f"steady {number}" for number in sender.sent["steady"]]
        found += [f"welcome {number} {number}" for number in sender.sent["welcome"]]
    return Counter(found)


def expect_all(broker: Broker, old: Sender, new: Sender, *pools: Pool) -> None:
    """Expect that each message has run once, and that none is dead or left."""
    everything = expected(old, new)
    wait_until(lambda: not everything - ran(*pools), 60, "the run of each message")
    assert ran(*pools) == everything
    assert [broker.count(queue) for queue in ("work", "work.dead", "amqpworker.parked")] == [0, 0, 0]


def grown(sender: Sender, by: int) -> Callable[[], bool]:
    target = sender.total + by
    return lambda: sender.total >= target or sender.failure is not None


def test_new_senders_before_new_workers_under_load(tmp_path: Path, vhost: Broker) -> None:
    health = str(tmp_path / "health.sock")
    with workers(tmp_path / "old", vhost, OLD, "--health", health) as old_workers:
        old = Sender(released(tmp_path / "a", vhost, OLD))
        new = Sender(released(tmp_path / "b", vhost, NEW))
        with old, new:
            logged = {line["task"]: line for line in old_workers.wait_for("task_unknown", 3)}
            assert sorted(logged) == ["shop.added", "shop.report", "shop.welcome"]
            assert "no parameter 'lang'" in logged["shop.report"]["reason"]
            assert "version 2" in logged["shop.welcome"]["reason"]
            wait_until(lambda: set(get_status(health)["unknown"]) == set(logged), 10, "the status shows them")
            assert "of unknown tasks waiting" in get_status(health)["status"]
            with workers(tmp_path / "new", vhost, NEW) as new_workers:
                wait_until(grown(new, 100))
                end(old_workers)
                wait_until(grown(new, 100))
                old.stop()
                new.stop()
                assert min(map(len, new.sent.values())) > 50
                expect_all(vhost, old, new, old_workers, new_workers)
                assert len(old_workers.events("task_unknown")) == 3, "one line per task and minute"
                end(new_workers)


def test_new_workers_before_new_senders_under_load(tmp_path: Path, vhost: Broker) -> None:
    old, new = Sender(released(tmp_path / "a", vhost, OLD)), Sender(released(tmp_path / "b", vhost, NEW))
    with workers(tmp_path / "old", vhost, OLD) as old_workers, old:
        wait_until(grown(old, 50))
        with workers(tmp_path / "new", vhost, NEW) as new_workers:
            wait_until(grown(old, 100))
            end(old_workers)
            with new:
                wait_until(grown(old, 100))
            old.stop()
            assert min(map(len, [*old.sent.values(), *new.sent.values()])) > 20
            expect_all(vhost, old, new, old_workers, new_workers)
            assert new_workers.events("task_unknown") == []
            end(new_workers)


def test_what_no_worker_ever_knows_is_dead_after_ten_minutes_and_a_replay_begins_anew(
    tmp_path: Path, vhost: Broker
) -> None:
    with workers(tmp_path / "old", vhost, OLD):
        first_sent = "2026-11-30T05:00:00.000Z"
        headers: dict[str, Any] = {"aw-first-sent": first_sent, "aw-unknown-since": first_sent}
        vhost.publish("amqpworker.tasks", "work", b"{}", pika.BasicProperties(headers=headers, type="shop.added"))
        letter = vhost.wait_for_message("work.dead")
        assert (letter.headers["aw-dead-reason"], letter.headers["aw-unknown-since"]) == ("unknown-task", first_sent)
        vhost.publish("amqpworker.tasks", "work", letter.body, letter.properties)
        waiting = vhost.wait_for_message("amqpworker.delay.05")
        assert first_sent < waiting.headers["aw-unknown-since"] <= now_text(2e9)
        assert "aw-dead-reason" not in waiting.headers
