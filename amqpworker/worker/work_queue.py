"""
What waits in a worker process for a runner thread.

Decides the order: as deliveries arrive, but for bounded queues those that were accepted before are first. A fair share would
let retries grow without end while new work is taken beside them.
"""

from __future__ import annotations

import contextlib
from collections import deque
from queue import Empty, SimpleQueue
from typing import TypeAlias

from amqpworker.model.message import Delivery


class DueFirst:
    """
    A `SimpleQueue` of deliveries whose `get` returns those first whose channel `goes_first`; safe to use from many threads.

    `None`, which ends a thread, keeps its place among the others.
    """

    def __init__(self) -> None:
        # For each entry one token, which is added after its delivery: who has a token finds a delivery.
        self._tokens: SimpleQueue[bool] = SimpleQueue()
        self._first: deque[Delivery] = deque()
        self._others: deque[Delivery] = deque()

    def put(self, delivery: Delivery | None) -> None:
        """Add a delivery, or the end of a thread."""
        if delivery is not None:
            (self._first if delivery.channel.goes_first else self._others).append(delivery)
        self._tokens.put(delivery is not None)

    def get(self) -> Delivery | None:
        """Wait for a delivery, and return it."""
        return self._take() if self._tokens.get() else None

    def get_nowait(self) -> Delivery | None:
        """Return a delivery; raises `queue.Empty` if none is here."""
        return self._take() if self._tokens.get_nowait() else None

    def empty(self) -> bool:
        """Return whether nothing waits."""
        return self._tokens.empty()

    def _take(self) -> Delivery:
        try:
            return self._first.popleft()
        except IndexError:
            return self._others.popleft()


WorkQueue: TypeAlias = "SimpleQueue[Delivery | None] | DueFirst"


def make_work_queue(due_first: bool) -> WorkQueue:
    """Return an empty queue; a plain one is faster."""
    return DueFirst() if due_first else SimpleQueue()


def drop_requeued(work: WorkQueue) -> None:
    """Drop the deliveries of a work queue that were requeued; for the thread that calls `put`."""
    waiting: list[Delivery | None] = []
    with contextlib.suppress(Empty):
        while True:
            waiting.append(work.get_nowait())
    for delivery in waiting:
        if delivery is None or delivery.channel.is_unclaimed(delivery):
            work.put(delivery)
