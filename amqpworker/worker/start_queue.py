"""
The queue of deliveries in a worker process that wait until they can start.

Decides the order: as deliveries arrive, but of a bounded queue those that were accepted before are first. A fair share would
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
    A `SimpleQueue` of deliveries that of each queue in `bounded` returns those first whose channel `goes_first`.

    Only the order within such a queue is changed: where one of its deliveries was added, one of them is returned, so other
    queues have the same share as without. Safe to use from many threads.
    """

    def __init__(self, bounded: frozenset[str]) -> None:
        # For a delivery of a bounded queue its name, added after the delivery: who takes the name finds a delivery.
        self._order: SimpleQueue[Delivery | str | None] = SimpleQueue()
        self._first: dict[str, deque[Delivery]] = {queue: deque() for queue in bounded}
        self._others: dict[str, deque[Delivery]] = {queue: deque() for queue in bounded}

    def put(self, delivery: Delivery | None) -> None:
        """Add a delivery, or `None`, which ends a thread."""
        if delivery is None or delivery.queue not in self._first:
            self._order.put(delivery)
            return
        queue = delivery.queue
        (self._first if delivery.channel.goes_first else self._others)[queue].append(delivery)
        self._order.put(queue)

    def get(self) -> Delivery | None:
        """Wait for a delivery, and return it."""
        return self._delivery(self._order.get())

    def get_nowait(self) -> Delivery | None:
        """Return a delivery; raises `queue.Empty` if none is here."""
        return self._delivery(self._order.get_nowait())

    def empty(self) -> bool:
        """Return whether nothing waits."""
        return self._order.empty()

    def _delivery(self, taken: Delivery | str | None) -> Delivery | None:
        if not isinstance(taken, str):
            return taken
        try:
            return self._first[taken].popleft()
        except IndexError:
            return self._others[taken].popleft()


StartQueue: TypeAlias = "SimpleQueue[Delivery | None] | DueFirst"


def make_start_queue(bounded: frozenset[str]) -> StartQueue:
    """Return an empty queue; without bounded queues it is a plain one, which is faster."""
    return DueFirst(bounded) if bounded else SimpleQueue()


def drop_requeued(start_queue: StartQueue) -> None:
    """Drop the deliveries that were requeued; for the thread that calls `put`."""
    waiting: list[Delivery | None] = []
    with contextlib.suppress(Empty):
        while True:
            waiting.append(start_queue.get_nowait())
    for delivery in waiting:
        if delivery is None or delivery.channel.is_unclaimed(delivery):
            start_queue.put(delivery)
