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
from amqpworker.routing.topology import dead_queue
from examples.demo.tasks import Counts, app, count, largest, lateness

STUMBLE_EVERY = 50
DELAY = 2.0
PATIENCE = 60.0


@dataclass
class Tally:
    """How far the job is, and what came out of it."""

    total: int
    sent: int = 0
    sent_in: float = 0.0
    took: float = 0.0
    counts: dict[Path, Counts] = field(default_factory=dict)
    dead: dict[Path, TaskFailed] = field(default_factory=dict)
    letters: int = 0
    letters_queue: str = ""
    late: float = 0.0
    largest: list[tuple[str, int]] = field(default_factory=list)
    round_trip: float = 0.0

    @property
    def ended(self) -> int:
        """How many files are done with."""
        return len(self.counts) + len(self.dead)

    @property
    def retried(self) -> int:
        """How many files needed a second attempt."""
        return sum(one.attempt > 1 for one in self.counts.values())

    @property
    def reasons(self) -> Counter[str]:
        """Why files became dead letters."""
        return Counter(f"{one.reason} ({one.error_type})" for one in self.dead.values())


def run(files: Sequence[Path], folder: Path, tell: Callable[[Tally], None]) -> Tally:
    """
    Do the job; `tell` is called several times a second.

    Raises: `SendError` when the broker does not take a message, `ConfigError` when nothing moves any more.
    """
    tally = Tally(len(files))
    began = time.monotonic()
    pending = dict(send(files, tally))
    tally.sent_in = time.monotonic() - began
    collect(pending, tally, tell)
    tally.took = time.monotonic() - began
    extras(folder, tally)
    return tally


def extras(folder: Path, tally: Tally) -> None:
    """Send one task that has to wait, and call one while it does."""
    due = datetime.now(UTC) + timedelta(seconds=DELAY)
    delayed = lateness.options(at=due).send(due)
    # The first call opens the way for its answers; the second takes what a call takes.
    largest.call(str(folder), 1)
    began = time.monotonic()
    tally.largest = largest.call(str(folder), 10)
    tally.round_trip = time.monotonic() - began
    tally.late = delayed.result(timeout=DELAY + PATIENCE)
    tally.letters_queue = dead_queue(count.queue)
    with Admin(app.url, app.settings) as broker:
        depth = broker.depth(tally.letters_queue)
        tally.letters = depth.messages if depth is not None else 0


def send(files: Sequence[Path], tally: Tally) -> Iterator[tuple[Path, Sent[Counts]]]:
    """Send a task for each file: confirmed by the broker, and many at once."""
    for path, outcome in zip(files, app.send_each(messages(files)), strict=True):
        if isinstance(outcome, SendError):
            raise outcome
        tally.sent += 1
        yield path, outcome


def messages(files: Sequence[Path]) -> Iterator[Message]:
    """Make a message for each file; some of them fail once."""
    for number, path in enumerate(files):
        yield count.message(str(path), stumbles=number % STUMBLE_EVERY == 0)


def collect(pending: dict[Path, Sent[Counts]], tally: Tally, tell: Callable[[Tally], None]) -> None:
    """Ask the store of results until it has one for each file."""
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
        tell(tally)
        now = time.monotonic()
        if len(pending) < before:
            moved = now
        elif now - moved > PATIENCE:
            raise ConfigError(f"Nothing has ended for {PATIENCE:.0f} s, and {len(pending)} files are left.")
        # However many there are: most of the time is the workers'.
        time.sleep(max(0.1, 4 * (now - began)) if pending else 0)
