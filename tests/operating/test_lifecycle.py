"""Each transition in the life of a message, as docs/failure.md lists them, taken by a message of a real broker."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, get_args

import pika
import pytest

from amqpworker import DeadLetter, Message, QueueFull, Retried, Run, Unroutable
from amqpworker.client.cancelling import announce
from amqpworker.client.stored_results import StoredResults
from amqpworker.hooks import Settled
from amqpworker.model.headers import time_text
from amqpworker.model.message import new_id
from amqpworker.model.outcome import (
    AlreadyDone,
    Cancelled,
    Dead,
    Deferred,
    Discarded,
    Done,
    Outcome,
    Postpone,
    Republish,
    Requeue,
    Retry,
    Snooze,
)
from amqpworker.model.reply import encode_done
from amqpworker.results.row import ResultRow
from tests import lifecycle
from tests.docs import ROOT, table
from tests.support import Broker, raw_channel, wait_until
from tests.unit.worker.settling import Store
from tests.workers import LocalWorker

PAGE = ROOT / "docs/failure.md"
HEAD = "| transition | from | to | when | log line | hook |"
TASKS = "amqpworker.tasks"
QUEUE = lifecycle.QUEUE

NOT_YET: set[type] = set()
"""Outcomes that no worker decides on yet."""


def rows() -> dict[str, list[str]]:
    """Return the transitions of the page: from where, to where, with which log line and hook."""
    found = table(PAGE.read_text(), HEAD)
    return {row[0]: [row[1], row[2], row[4].strip("`"), row[5].strip("`")] for row in found}


class Life:
    """Messages, what has become of them, and the transitions that they have taken."""

    def __init__(self, broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
        self.broker = broker
        self.app = lifecycle.made(broker.url)
        self.app.queue("none")
        self.app.queue("often")
        self.app.queue("tired")
        self.app.queue("bare")
        self.app.queue("bounded", max_length=1)
        self.tasks: Any = self.app.tasks
        self.settled: list[Settled] = []
        self.hooks: list[tuple[str, str]] = []
        self.taken: set[str] = set()
        self.often = self.later = ""
        self.taken_by: dict[str, int] = {}
        self.waiting: list[str] = []
        """What is in a queue once the worker starts, and is done by it."""
        self.outcomes: set[type] = set()
        self.ends: dict[str, str] = {}
        self.caplog = caplog
        self.known = rows()

        @self.app.on_success
        def done(run: Run, _: object) -> None:
            self.hooks.append(("on_success", run.id))

        @self.app.on_retry
        async def retried(retried: Retried) -> None:
            self.hooks.append(("on_retry", retried.id))

        @self.app.on_dead
        def died(letter: DeadLetter) -> None:
            self.hooks.append(("on_dead", letter.id))

    # ---- workers and messages ---------------------------------------------------------------------------------------

    @contextmanager
    def worker(self, threads: int = 2) -> Iterator[LocalWorker]:
        """Run a worker, which must end well."""
        queues = [QUEUE, "often", "bare", "bounded"]
        options = {"queues": queues, "threads": threads, "prefetch": 10}
        worker = LocalWorker(self.app, target="tests.lifecycle:app", **options)
        worker.process.settler.listeners.add(self.settled.extend)
        worker.start()
        worker.wait_until_consuming()
        try:
            yield worker
        finally:
            worker.process.stop_requested.set()
            lifecycle.release.set()
            code = worker.stop()
            lifecycle.release.clear()
        assert code == 0

    def send(self, task: str, *args: object, **options: Any) -> str:
        """Send a message, and return its id."""
        return str(self.tasks[task].options(**options).send(*args).id)

    def publish(self, task: str, body: bytes = b"{}", queue: str = QUEUE, **properties: Any) -> str:
        """Publish a message as another program does, and return its id."""
        task_id = new_id()
        given = pika.BasicProperties(type=task, message_id=task_id, **properties)
        assert self.broker.publish("amqpworker.tasks", queue, body, given)
        return task_id

    def deliver_and_return(self, queue: str, times: int) -> None:
        """Have the broker deliver the only message of a queue again and again, at most until it is a dead letter."""
        places = queue, f"{queue}.dead"
        with raw_channel(self.broker.url) as channel:
            for _ in range(times):
                # From RabbitMQ 4.3 on, a nack does not count as a delivery.
                own = channel.connection.channel()
                method = own.basic_get(queue)[0]
                own.close()
                if method is None:  # it may not have returned yet
                    wait_until(lambda: any(map(self.broker.count, places)), what="it is somewhere")
                    if self.broker.count(f"{queue}.dead"):
                        return

    # ---- what has become of them ------------------------------------------------------------------------------------

    def events_of(self, task_id: str) -> list[Settled]:
        # By when each was decided: a copy without a delay may be acknowledged before what it replaces.
        return sorted((event for event in list(self.settled) if event.id == task_id), key=lambda event: event.at)

    def take(self, task_id: str, *transitions: str) -> None:
        """Note that a message has taken these transitions, each of which has had its log line and hook."""
        for name in transitions:
            _, to, line, hook = self.known[name]
            self.taken.add(name)
            self.ends[task_id] = to
            if line:
                wait_until(partial(self.logged, line, task_id), 5, f"{name}: the log has {line}")
            if hook:
                wait_until(partial(self.hooks.__contains__, (hook, task_id)), 5, f"{name}: {hook} was called")
                self.hooks.remove((hook, task_id))

    def logged(self, line: str, task_id: str) -> bool:
        messages = [record.getMessage() for record in list(self.caplog.records)]
        # There is one line for all messages of a task.
        named = "task=later" if line == "task_unknown" else task_id
        return any(one.startswith(f"{line} ") and named in one for one in messages)

    def wait_for_pauses(self, changes: int) -> None:
        """Wait until the worker has read this many changes of what is paused."""
        read = "pauses_changed "
        wait_until(lambda: sum(one.getMessage().startswith(read) for one in self.caplog.records) == changes, 10, read)

    def expect(self, task_id: str, *steps: tuple[type, str]) -> None:
        """Wait until a worker has settled a message this often, each time with this outcome, by this transition."""
        kinds = [kind for kind, _ in steps]
        wait_until(lambda: len(self.events_of(task_id)) >= len(steps), 20, f"{task_id} had {kinds}")
        earlier = self.taken_by.get(task_id, 0)
        self.taken_by[task_id] = len(steps)
        for event, (kind, name) in list(zip(self.events_of(task_id), steps, strict=True))[earlier:]:
            assert isinstance(event.outcome, kind), (event.outcome, name)
            assert not isinstance(event.outcome, Dead) or event.outcome.reason == name
            self.outcomes.add(kind)
            self.take(task_id, "delivered", *(["started"] if event.run is not None else []), name)

    def check_ends(self) -> None:
        """Check that each message is where its last transition has led it, and nowhere else."""
        places = {"queue": [QUEUE], "dead": ["work.dead", "tired.dead"], "parked": ["amqpworker.parked"]}
        queues = [(place, queue) for place, names in places.items() for queue in names]
        found = {task_id: place for place, queue in queues for task_id in self.broker.ids(queue)}
        assert found == {task_id: end for task_id, end in self.ends.items() if end not in {"gone", "sender"}}
        assert self.hooks == [], "no other hook was called"


# ---- before there is a worker ---------------------------------------------------------------------------------------


def sent_or_refused(life: Life) -> None:
    """The queue of the one exists, that of the other does not."""
    life.waiting.append(life.send("works", 1))
    life.take(life.waiting[-1], "sent")
    assert life.broker.count(QUEUE) == 1
    message = Message("works", "nowhere", b"{}", new_id())
    with pytest.raises(Unroutable):
        life.app.send(message)
    life.take(message.id, "refused")


def delayed(life: Life) -> None:
    """The queue of the one exists when its time has come, that of the other is gone."""
    life.send("works", 2, queue="none")  # declares the queue
    waits = life.send("works", 3, delay=1)
    lost = life.send("works", 4, queue="none", delay=1)
    assert life.broker.count(QUEUE) == 1
    life.broker.delete_queue("none")
    life.take(waits, "delayed")
    life.take(lost, "delayed")
    life.broker.wait_for_count(QUEUE, 2)
    life.take(waits, "due")
    life.waiting.append(waits)
    life.broker.wait_for_count("amqpworker.parked", 1)
    life.take(lost, "parked")


def refused_when_full(life: Life, queue: str) -> str:
    """Send messages until one is refused, and return its id."""
    for _ in range(50):
        message = Message("works", queue, b"{}", new_id())
        try:
            life.app.send(message)
        except QueueFull:
            return message.id
    raise AssertionError(f"{queue} is never full")


def bounded(life: Life) -> None:
    """A bounded queue takes no more messages, but what was accepted before is due beside it."""
    life.take(refused_when_full(life, "bounded"), "refused")
    due = life.send("works", 10, queue="bounded", delay=0.25)
    life.take(due, "delayed")
    life.broker.wait_for_count("bounded.due", 1)
    life.take(due, "due")
    life.waiting.append(due)
    sent = life.broker.ids("bounded")
    assert sent != []
    life.broker.management.purge_queue(life.broker.vhost, "bounded")
    for task_id in sent:
        life.take(task_id, "sent", "purged")


def delivered_too_often(life: Life) -> None:
    """RabbitMQ gives up a message that no client acknowledges; the other is not there yet."""
    life.often = life.send("works", 9, queue="often")
    life.deliver_and_return("often", 52)
    tired = life.send("works", 5, queue="tired")
    life.deliver_and_return("tired", 250)
    life.broker.wait_for_count("tired.dead", 1)
    life.take(tired, "sent", "delivery-limit")


# ---- with a worker --------------------------------------------------------------------------------------------------


def deferred(life: Life) -> None:
    """The worker does not know its task yet; it waits for some seconds."""
    life.later = life.publish("later")
    wait_until(lambda: life.events_of(life.later), 10, "it is returned to the ladder")
    life.app.task(name="later")(lifecycle.works)


def known_by_now(life: Life) -> None:
    """It was returned before, and is due by now."""
    life.expect(life.later, (Deferred, "deferred"), (Done, "done"))


def never_run(life: Life) -> None:
    """Decided before the task is called."""
    past = time_text(int(time.time() * 1000) - 60_000)
    ten_minutes_ago = time_text(int(time.time() * 1000) - 600_000)
    life.expect(life.publish("works", headers={"aw-expires": past}), (Dead, "expired"))
    life.expect(life.publish("works", b"[1"), (Dead, "malformed"))
    life.expect(life.publish("unknown", headers={"aw-unknown-since": ten_minutes_ago}), (Dead, "unknown-task"))
    call = life.publish("works", headers={"aw-expires": past}, reply_to="caller")
    life.expect(call, (Discarded, "discarded"))
    soon = time_text(int(time.time() * 1000) + 1_500)
    early = life.publish("works", headers={"aw-eta": soon})
    life.expect(early, (Postpone, "postponed"), (Done, "done"))


def run_once(life: Life) -> None:
    """The end of a run is the end of the message."""
    life.expect(life.send("works", 6), (Done, "done"))
    life.expect(life.send("adds", 1, 2), (Done, "done"))
    assert lifecycle.values == [(3,)], "its result was stored nowhere, and its hook has got it"
    life.expect(life.send("fails"), (Dead, "failed"))
    life.expect(life.send("rejects"), (Dead, "rejected"))
    life.expect(life.send("overruns"), (Dead, "timeout"))


def run_again(life: Life) -> None:
    """The end of a run leads to another one."""
    life.expect(life.send("retries"), (Retry, "retried"), (Done, "done"))
    life.expect(life.send("snoozes"), (Snooze, "snoozed"), (Done, "done"))
    life.expect(life.send("crashes"), (Snooze, "crashed-once"), (Dead, "crashed"))


def cancelled(life: Life) -> None:
    """The one waits for its time, the other runs."""
    waits, runs = life.send("works", 10, delay=0.5), life.send("loops")
    announce(life.app, [waits])
    life.expect(waits, (Cancelled, "cancelled"))
    wait_until(lambda: runs in lifecycle.started, 10, "it runs")
    announce(life.app, [runs], force=True)
    life.expect(runs, (Cancelled, "interrupted"))


def renewed(life: Life) -> None:
    """A message that was delivered often is replaced by a copy, which runs."""
    life.expect(life.often, (Republish, "renewed"), (Done, "done"))


def stranded(life: Life) -> None:
    """A dead letter whose queue was deleted since the worker has declared it."""
    life.expect(life.publish("works", b"[1", "bare"), (Dead, "malformed"))
    deleted = life.broker.wait_for_message("bare.dead")
    life.ends.pop(deleted.properties.message_id)
    life.broker.delete_queue("bare.dead")
    letter = life.publish("works", b"[1", "bare")
    life.expect(letter, (Dead, "malformed"))
    life.broker.wait_for_count("amqpworker.parked", 2)
    life.take(letter, "stranded")


def pending(life: Life) -> None:
    """The one is found in the ladder and removed, the other has another time from then on."""
    removed, moved = life.send("works", 11, delay=600), life.send("works", 12, delay=600)
    life.take(removed, "delayed")
    life.take(moved, "delayed")
    assert life.app.pending.cancel(removed) == {removed: "removed"}
    life.take(removed, "removed")
    assert life.app.pending.reschedule(moved, delay=0)
    life.take(moved, "rescheduled")
    life.expect(moved, (Done, "done"))


def paused(life: Life) -> None:
    """Its task is paused when it is delivered, and resumed before it is delivered again."""
    life.app.queues.pause_task("repaired")
    life.wait_for_pauses(1)
    waits = life.send("repaired")
    life.expect(waits, (Deferred, "paused"))
    life.app.queues.resume_task("repaired")
    life.wait_for_pauses(2)
    assert life.app.pending.reschedule(waits, delay=0)
    life.expect(waits, (Deferred, "paused"), (Dead, "failed"))


def replayed_or_dropped(life: Life) -> None:
    """What becomes of a dead letter is decided by its operator."""
    replayed, dropped = life.send("repaired"), life.send("rejects")
    life.expect(replayed, (Dead, "failed"))
    life.expect(dropped, (Dead, "rejected"))
    assert life.app.dead.replay(replayed) == {replayed: 1}
    life.take(replayed, "replayed")
    life.expect(replayed, (Dead, "failed"), (Done, "done"))
    assert life.app.dead.drop(dropped) == {dropped: 1}
    life.take(dropped, "dropped")


def moved(life: Life) -> None:
    """A dead letter is moved back into its queue, with its headers."""
    letter = life.publish("works", headers={"aw-dead-reason": "failed", "aw-attempt": 3})
    life.take(letter, "moved")
    life.expect(letter, (Done, "done"))


def redelivered(life: Life) -> None:
    """The connection is lost during a run."""
    waits = life.send("waits")
    wait_until(lambda: lifecycle.started.count(waits), 10, "it runs")
    life.broker.close_connections()
    life.take(waits, "redelivered")
    wait_until(lambda: lifecycle.started.count(waits) == 2, 20, "it runs a second time, beside the first one")
    lifecycle.release.set()
    life.expect(waits, (Done, "done"))
    lifecycle.release.clear()


# ---- while a worker stops -------------------------------------------------------------------------------------------


def not_stored(life: Life) -> str:
    """The task has returned, and its result cannot be stored."""
    store = Store()
    store.failures = 1000
    life.app.results = "sqlite:///never.db"
    life.app._stored_results[life.app.results] = StoredResults(store)
    with life.worker(threads=1) as worker:
        unstored = life.send("works", 8)
        failed = "results_not_stored "
        wait_until(lambda: any(one.getMessage().startswith(failed) for one in list(life.caplog.records)), 10, failed)
        worker.process.stop_requested.set()
        life.expect(unstored, (Requeue, "not-stored"))
    life.app.results = None
    return unstored


def already_done(life: Life) -> None:
    """The store has a result of its id."""
    store = Store()
    life.app.results = "sqlite:///done.db"
    life.app._stored_results[life.app.results] = StoredResults(store)
    life.tasks["works"].dedupe = True
    with life.worker(threads=1):
        message = life.tasks["works"].message(9)
        store.rows[message.id] = ResultRow(message.id, "done", "works", encode_done(b"9"), "", 1.0, 4e9)
        life.app.send(message)
        life.expect(message.id, (AlreadyDone, "already-done"))
    life.tasks["works"].dedupe = False
    life.app.results = None


def requeued(life: Life) -> None:
    """It waits behind a message that runs."""
    with life.worker(threads=1) as worker:
        running, waits = life.send("waits"), life.send("works", 7)
        wait_until(lambda: running in lifecycle.started, 10, "the one runs")
        life.broker.wait_for_count(QUEUE, 0)
        worker.process.stop_requested.set()
        life.expect(waits, (Requeue, "requeued"))
        lifecycle.release.set()
        life.expect(running, (Done, "done"))


BEFORE: list[Callable[[Life], None]] = [sent_or_refused, delayed, bounded, delivered_too_often]
WITH_A_WORKER: list[Callable[[Life], None]] = [
    deferred,
    never_run,
    run_once,
    run_again,
    cancelled,
    renewed,
    stranded,
    pending,
    paused,
    replayed_or_dropped,
    moved,
    redelivered,
    known_by_now,
]


def test_each_transition_is_taken_as_the_page_has_it(vhost: Broker, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    life = Life(vhost, caplog)
    for walk in BEFORE:
        walk(life)
    with life.worker():
        for walk in WITH_A_WORKER:
            walk(life)
        for task_id in life.waiting:
            life.expect(task_id, (Done, "done"))
    unstored = not_stored(life)
    already_done(life)
    requeued(life)
    life.expect(unstored, (Requeue, "not-stored"), (Done, "done"))
    life.check_ends()
    life.app.close()
    assert life.taken == {*life.known}
    assert life.outcomes == {*get_args(Outcome)} - NOT_YET


def test_the_picture_has_each_transition_and_each_place_of_the_table() -> None:
    picture = PAGE.read_text().split("```\n")[1]
    words = {*re.findall(r"[a-z][a-z-]+", picture)}
    assert words == {*rows()} | {place for row in rows().values() for place in row[:2]}


def test_the_table_has_each_reason_of_dead_letters() -> None:
    (row,) = [
        line for line in (ROOT / "docs/wire.md").read_text().splitlines() if line.startswith("| `aw-dead-reason`")
    ]
    reasons = {*re.findall(r"`([a-z-]+)`", row)} - {"aw-dead-reason"} - {"max_crashes"}
    assert reasons <= {name for name, (_, to, _, hook) in rows().items() if to == "dead" and hook == "on_dead"}
