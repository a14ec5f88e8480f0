"""A storm of retries on a bounded queue: senders that fill it, delays of another queue, and figures of both."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from amqpworker import App, QueueFull, Sent
from amqpworker.testing.waiting import is_true_within
from tests.cli import environment, started
from tests.stormtasks import BOUND, QUEUE
from tests.support import Broker, milliseconds, raw_channel, wait_until

PREFETCH = 128
OTHER = "other"


@dataclass
class Storm:
    """What was seen: the ids that were accepted, how often the queue was full, and each figure over time."""

    accepted: list[str] = field(default_factory=list)
    refused: int = 0
    due: list[int] = field(default_factory=list)
    new: list[int] = field(default_factory=list)
    late: list[float] = field(default_factory=list)

    def late_at(self, share: float) -> float:
        """Return how late this share of the other queue's messages was at most, in seconds."""
        return sorted(self.late)[int(share * (len(self.late) - 1))]

    def __str__(self) -> str:
        return (
            f"ready at most: {max(self.due)} in {QUEUE}.due, {max(self.new)} in {QUEUE}; late in another queue: p50 {self.late_at(0.5) * 1000:.0f} ms, "
            f"p99 {self.late_at(0.99) * 1000:.0f} ms"
        )


def rage(app: App, broker: Broker, folder: Path, seconds: float) -> Storm:
    """Have a worker run tasks that fail for this time, then have them succeed, and wait until all that was accepted has."""
    storm = Storm()
    task = app.remote(name="storm", queue=app.queue(QUEUE, max_length=BOUND))(lambda: None)
    other = app.remote(name="other", queue=OTHER)(lambda: None)
    other.options(delay=0.125).send()
    broker.wait_for_message(OTHER)

    # In one burst, so that the queue is full when the worker starts.
    storm.accepted += [one.id for one in app.send_each(task.message() for _ in range(BOUND)) if isinstance(one, Sent)]

    def send() -> None:
        try:
            storm.accepted.append(task.send().id)
        except QueueFull:
            storm.refused += 1

    def look() -> None:
        storm.due.append(broker.count(f"{QUEUE}.due"))
        storm.new.append(broker.count(QUEUE))

    command = ["worker", "tests.stormtasks:app", "-p", "1", "-t", "4", "--prefetch", str(PREFETCH), "-q", QUEUE]
    env = environment(broker.url, STORM_FOLDER=str(folder), PYTHONPATH=str(Path(__file__).parents[1]))
    with (folder / "log").open("wb") as log, started(folder, env, *command, stdout=log, stderr=log) as worker:
        delay = repeated(lambda: other.options(delay=1.0).send(), 0.02)
        with reading(broker, storm), repeated(send, 0.005), repeated(look, 0.1), delay:
            assert not is_true_within(seconds, lambda: worker.poll() is not None), "the worker has ended"
        (folder / "calm").touch()
        wait_until(lambda: set(storm.accepted) <= done(folder), 120, "all that was accepted is done")
        worker.terminate()
        worker.wait(60)
    return storm


def check(storm: Storm, broker: Broker, on_time: float) -> None:
    """Check that accepted work never waited for the bound, and that this share of the other queue's messages was on time."""
    seen = f"{len(storm.accepted)} accepted, {storm.refused} refused, {storm}"
    assert max(storm.due) < PREFETCH, seen
    assert storm.refused > 10, seen
    assert len(storm.accepted) > 1.5 * BOUND, seen
    assert max(storm.new) <= 1.1 * BOUND, seen
    assert storm.late_at(on_time) <= 0.1, seen
    for queue in (QUEUE, f"{QUEUE}.due", f"{QUEUE}.dead", "amqpworker.parked"):
        broker.wait_for_count(queue, 0)


def done(folder: Path) -> set[str]:
    """Return the ids of the tasks that have succeeded."""
    file = folder / "done"
    return set(file.read_text().split()) if file.exists() else set()


@contextmanager
def repeated(action: Callable[[], object], pause: float) -> Iterator[None]:
    """Do something again and again, in a thread."""
    over, errors = threading.Event(), list[BaseException]()

    def run() -> None:
        try:
            while not over.wait(pause):
                action()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    for error in errors:
        raise error


@contextmanager
def reading(broker: Broker, storm: Storm) -> Iterator[None]:
    """Note how late the other queue's messages arrive."""
    over = threading.Event()

    def run() -> None:
        with raw_channel(broker.url) as channel:
            for method, properties, _ in channel.consume(OTHER, auto_ack=True, inactivity_timeout=0.5):
                if method is None:
                    if over.is_set():
                        return
                    continue
                storm.late.append(time.time() - milliseconds(properties.headers["aw-eta"]) / 1000)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
