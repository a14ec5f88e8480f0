"""
A pool of amqpworker as a program that is watched from outside: by its log, its tasks' ledger, and the broker's own count.

What happens to it (signals, kills, a broker that is frozen) is up to the rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import pika
from amqpworker import App
from amqpworker.model.message import Message, new_id

from bench import declare
from bench.context import Slot
from bench.ledger import VARIABLE, Ledger
from bench.load import QUEUE
from bench.places import OWN_PROGRAM, Running, running
from bench.watched import PATIENCE, Watched

MODULE = "bench.sides.pool_tasks"
DRAIN_TIMEOUT = 5


class Pool(Watched):
    """A pool that runs; its first process is the supervisor."""

    def __init__(self, processes: Running, url: str, ledger: Ledger) -> None:
        super().__init__(processes)
        self.url = url
        self.ledger = ledger

    def signal(self, number: int) -> None:
        """Send the supervisor a signal."""
        self.processes.processes[0].send_signal(number)

    def wait_for_lines(self, count: int, patience: float = PATIENCE) -> list[tuple[str, float]]:
        """Return what the tasks have noted, once there are so many lines."""
        self.until(lambda: self.ledger.count() >= count, f"{count} lines of tasks", patience)
        return self.ledger.lines()


def send(url: str, task: str, indexes: Iterable[int]) -> None:
    """Send a message of one of the pool's tasks for each index, all confirmed."""
    with App(url) as app:
        app.queue(QUEUE)
        bodies = (json.dumps({"index": index}).encode() for index in indexes)
        app.send_many(Message(f"{MODULE}.{task}", QUEUE, body, new_id()) for body in bodies)


class QueueView:
    """What the broker reports about the bench's queue, or another one, over a separate connection."""

    def __init__(self, url: str, queue: str = QUEUE) -> None:
        self._queue = queue
        self._connection = pika.BlockingConnection(pika.URLParameters(url))
        self.channel = self._connection.channel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection.is_open:
            self._connection.close()

    def consumers(self) -> int:
        """Return how many consumers the broker knows of."""
        return self._declared().consumer_count

    def ready(self) -> int:
        """Return how many messages are ready and not delivered."""
        return self._declared().message_count

    def _declared(self) -> Any:
        return self.channel.queue_declare(self._queue, passive=True).method


@contextmanager
def pool(place: Slot, *options: str, module: str = MODULE, log: str = "log") -> Iterator[Pool]:
    """Run a pool on `sides/pool_tasks.py`, or another module, whose queue exists already; `log` is the name of its log."""
    declare.declare(place.url, declare.ours())
    ledger = Ledger(place.folder / "ledger")
    told = {"BENCH_URL": place.url, VARIABLE: str(ledger.path)}
    fixed = ["-q", QUEUE, "--drain-timeout", str(DRAIN_TIMEOUT), "--log-json"]
    with running([[OWN_PROGRAM, "worker", f"{module}:app", *fixed, *options]], told, place.folder / log) as processes:
        yield Pool(processes, place.url, ledger)
