"""The demo's job: send a task for every file, then see how each of them ends."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from amqpworker import ConfigError, Message, ResultTimeout, SendError, Sent, TaskFailed
from amqpworker.broker.admin import Admin
from amqpworker.model.reply import decode_reply
from amqpworker.routing.topology import dead_queue
from amqpworker.schedules.tick import tick_id
from amqpworker.testing import wait_until
from examples.demo.files import repair
from examples.demo.tasks import Counts, app, count, largest, lateness

STUMBLE_EVERY = 50
DELAY = 2.0
PATIENCE = 60.0


@dataclass
class Tally:
    """The progress of the job, and its results."""

    total: int
    sent: int = 0
    sent_in: float = 0.0
    took: float = 0.0
    counts: dict[Path, Counts] = field(default_factory=dict)
    dead: dict[Path, TaskFailed] = field(default_factory=dict)
    letters: int = 0
    letters_queue: str = ""
    late: float = 0.0
    cancelled: bool = False
    replayed: Path | None = None
    largest: list[tuple[str, int]] = field(default_factory=list)
    round_trip: float = 0.0
    began: float = field(default_factory=time.time)
    ticks: list[float] = field(default_factory=list)

    @property
    def ended(self) -> int:
        """The number of files that have a result or are dead-lettered."""
        return len(self.counts) + len(self.dead)

    @property
    def retried(self) -> int:
        """The number of files that needed a second attempt."""
        return sum(one.attempt > 1 for one in self.counts.values())

    @property
    def reasons(self) -> Counter[str]:
        """The reasons why files were dead-lettered."""
        return Counter(f"{one.reason} ({one.error_type})" for one in self.dead.values())


def run(files: Sequence[Path], folder: Path, report: Callable[[Tally], None]) -> Tally:
    """
    Do the job; `report` is called several times per second.

    Raises: `SendError` if the broker does not accept a message, `ConfigError` if there is no progress.
    """
    tally = Tally(len(files))
    began = time.monotonic()
    sents = dict(send(files, tally))
    tally.sent_in = time.monotonic() - began
    collect(dict(sents), tally, report)
    tally.took = time.monotonic() - began
    replay_one(sents, tally)
    extras(folder, tally)
    return tally


def replay_one(sents: dict[Path, Sent[Counts]], tally: Tally) -> None:
    """Repair a file that could not be parsed, and run its dead letter again."""
    path = next(filter(repair, tally.dead), None)
    if path is not None:
        sent = sents[path]
        app.dead.replay(sent.id)
        wait_until(lambda: sent.status().state == "done", PATIENCE, "the end of a replayed task")
        tally.counts[path] = sent.result(timeout=0)
        del tally.dead[path]
        tally.replayed = path


def extras(folder: Path, tally: Tally) -> None:
    """Send one delayed task, and another one that is cancelled; call a third one meanwhile."""
    due = datetime.now(UTC) + timedelta(seconds=DELAY)
    delayed = lateness.options(at=due).send(due)
    regretted = lateness.options(delay=3600).send(due)
    tally.cancelled = app.pending.cancel(regretted.id)[regretted.id] == "removed"
    # The first call also opens the channel for replies; the second one is measured.
    largest.call(str(folder), 1)
    began = time.monotonic()
    tally.largest = largest.call(str(folder), 10)
    tally.round_trip = time.monotonic() - began
    tally.late = delayed.result(timeout=DELAY + PATIENCE)
    wait_until(lambda: see_ticks(tally), PATIENCE, "the first tick of the schedule")
    tally.letters_queue = dead_queue(count.queue)
    with Admin(app.url, app.settings) as broker:
        depth = broker.depth(tally.letters_queue)
        tally.letters = depth.messages if depth is not None else 0


def see_ticks(tally: Tally) -> bool:
    """Read how late each tick of the schedule ran; their ids follow from their times."""
    store = app.store()
    assert store is not None
    # A scheduler has the name of the demo's queue.
    names = (app.plan.names.namespace, app.default_queue, "pulse")
    ids = [tick_id(*names, second * 1000) for second in range(int(tally.began), int(time.time()) + 1)]
    rows = store.get(ids)
    tally.ticks = [float(decode_reply(rows[one].reply).value or 0) for one in ids if one in rows]
    return bool(tally.ticks)


def send(files: Sequence[Path], tally: Tally) -> Iterator[tuple[Path, Sent[Counts]]]:
    """Send a task for each file: each confirmed by the broker, many at once."""
    for path, outcome in zip(files, app.send_each(messages(files)), strict=True):
        if isinstance(outcome, SendError):
            raise outcome
        tally.sent += 1
        yield path, outcome


def messages(files: Sequence[Path]) -> Iterator[Message]:
    """Make a message for each file; some of the tasks fail once."""
    for number, path in enumerate(files):
        yield count.message(str(path), stumbles=number % STUMBLE_EVERY == 0)


def collect(pending: dict[Path, Sent[Counts]], tally: Tally, report: Callable[[Tally], None]) -> None:
    """Read the result store until it has a result for each file."""
    moved = time.monotonic()
    while pending:
        before, began = len(pending), time.monotonic()
        for path, sent in tuple(pending.items()):
            try:
                tally.counts[path] = sent.result(timeout=0)
            except ResultTimeout:
                continue
            except TaskFailed as failed:
                tally.dead[path] = failed
            del pending[path]
        see_ticks(tally)
        report(tally)
        now = time.monotonic()
        if len(pending) < before:
            moved = now
        elif now - moved > PATIENCE:
            raise ConfigError(f"No task has ended for {PATIENCE:.0f} s, and {len(pending)} files are left.")
        # However many files there are, most of the time is left to the workers.
        time.sleep(max(0.1, 4 * (now - began)) if pending else 0)
