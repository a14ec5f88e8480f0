"""
What RabbitMQ does with the publications of one app, in memory: exchanges, queues, the delay ladder, dead letters and replies.

Decides what a publication becomes and when it is delivered; `inline_worker` takes the deliveries.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from amqpworker.broker.amqp.properties import property_values, read_values
from amqpworker.broker.publish_errors import nacked, unroutable
from amqpworker.errors import AmqpWorkerError
from amqpworker.model.cancel import UnusableCancel, decode_cancel
from amqpworker.model.dead_letter import DEATHS, DeadLetter
from amqpworker.model.headers import ETA, time_of
from amqpworker.model.message import REPLY_TO, Delivery, Publication
from amqpworker.routing.delay import longest_wait
from amqpworker.routing.topology import LEVELS, UNIT, dead_queue

if TYPE_CHECKING:
    from amqpworker.broker.pending_publish import PendingPublish
    from amqpworker.client.calls import Calls
    from amqpworker.routing.queues import Plan
    from amqpworker.testing.virtual_clock import VirtualClock
    from amqpworker.worker.cancels import Cancels

REPLIES = "inline.replies"
"""The address of replies, in place of the one that RabbitMQ makes for direct reply-to."""

NO_ROUTE = "312 NO_ROUTE"
CHANNEL = 1
"""The number of the one channel on which all is published."""


class Waiting(NamedTuple):
    """A message in the delay ladder, by when it is due (seconds since the epoch)."""

    due: float
    number: int
    publication: Publication


class InlineBroker:
    """
    The messages of one app; safe to use from many threads.

    `is_served` returns whether the app's workers consume a queue; messages in others stay there.
    """

    def __init__(
        self, plan: Plan, clock: VirtualClock, cancels: Cancels, is_served: Callable[[str], bool] = lambda _: True
    ) -> None:
        self._plan = plan
        self._names = plan.names
        self._clock = clock
        self._cancels = cancels
        self._is_served = is_served
        self._levels = {self._names.level(number): number for number in range(LEVELS)}
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._ready: deque[Publication] = deque()
        self._waiting: list[Waiting] = []
        self._unserved: list[Publication] = []
        self._letters: list[tuple[str, Publication]] = []

    def accept(self, pending: PendingPublish, calls: Calls) -> None:
        """End a publication: confirmed and in its queue, or returned, or refused by a full queue."""
        flags, values = property_values(pending.publication.properties)
        properties, _ = read_values(values, flags, 0, len(values))  # as a worker reads them
        publication = replace(pending.publication, properties=properties)
        pending.channel = CHANNEL
        pending.finish(self._route(publication, pending, calls))

    def _route(self, publication: Publication, pending: PendingPublish, calls: Calls) -> AmqpWorkerError | None:
        names, exchange, key = self._names, publication.exchange, publication.routing_key
        if exchange == "":
            if key == REPLIES:
                calls.resolve(publication.properties.correlation_id or "", publication.body)
            return None
        if exchange in self._levels:
            self._delay(publication)
        elif exchange == names.dead:
            self._letters.append((dead_queue(key), publication))
        elif key == names.cancelled:
            self._cancel(publication.body)
        elif exchange in (names.tasks, names.due) and key in self._plan.queues:
            if exchange == names.tasks and self._is_full(key):
                return nacked(pending, bounded=True)
            if publication.properties.reply_to == REPLY_TO:
                publication.properties.reply_to = REPLIES
            self._put(publication)
        elif publication.mandatory:
            pending.returned = NO_ROUTE
            return unroutable(pending)
        return None

    def _is_full(self, queue: str) -> bool:
        most = self._plan.queues[queue].max_length
        waiting = (*self._ready, *self._unserved)
        return most is not None and sum(one.routing_key == queue for one in waiting) >= most

    def _put(self, publication: Publication) -> None:
        (self._ready if self._is_served(publication.routing_key) else self._unserved).append(publication)

    def _cancel(self, body: bytes) -> None:
        try:
            self._cancels.add(decode_cancel(body))
        except UnusableCancel:
            return

    def _delay(self, publication: Publication) -> None:
        headers = publication.properties.headers or {}
        due = self._clock.now() + longest_wait(self._levels[publication.exchange], headers)
        eta = time_of(headers.get(ETA))
        # The ladder rounds up; so that a test need not, a message is due at its time.
        if eta is not None and due - UNIT - 0.001 <= eta / 1000 <= due:
            due = eta / 1000
        with self._lock:
            heapq.heappush(self._waiting, Waiting(due, next(self._numbers), publication))

    # ---- for the worker ---------------------------------------------------------------------------------------------

    def pop_ready(self) -> Publication | None:
        """Remove and return the oldest message that is in a queue, None if there is none."""
        try:
            return self._ready.popleft()
        except IndexError:
            return None

    @property
    def next_due(self) -> float | None:
        """When the next delayed message is due, in seconds since the epoch, None if there is none."""
        with self._lock:
            return self._waiting[0].due if self._waiting else None

    def release_due(self) -> None:
        """Put the delayed messages that are due into their queues, in the order of their times."""
        now = self._clock.now()
        while True:
            with self._lock:
                if not self._waiting or self._waiting[0].due > now:
                    return
                publication = heapq.heappop(self._waiting).publication
            if publication.routing_key == self._names.cancelled:
                self._cancel(publication.body)
            elif publication.routing_key in self._plan.queues:
                self._put(replace(publication, exchange=self._names.due))
            else:
                self._letters.append((self._names.parked, _parked(publication, self._clock.now())))

    def waiting(self) -> list[Publication]:
        """Return the delayed messages, the next one that is due first."""
        with self._lock:
            return [one.publication for one in sorted(self._waiting)]

    def dead_letters(self) -> list[DeadLetter]:
        """Return the dead letters as values, the oldest first."""
        return [
            _letter_of(publication, queue, position) for position, (queue, publication) in enumerate(self._letters, 1)
        ]


def _parked(publication: Publication, now: float) -> Publication:
    """Return a message that had no queue when it was due, with the evidence that RabbitMQ adds."""
    death = {"queue": publication.exchange, "reason": "expired", "time": datetime.fromtimestamp(int(now), UTC)}
    properties = replace(publication.properties, headers={**(publication.properties.headers or {}), DEATHS: [death]})
    return replace(publication, properties=properties)


def _letter_of(publication: Publication, queue: str, position: int) -> DeadLetter:
    key = publication.routing_key
    message = Delivery(0, False, publication.exchange, key, publication.properties, publication.body)
    message.queue = queue
    return DeadLetter.of(message, queue, position)
