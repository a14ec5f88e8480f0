"""
A model of a broker for schedulers, in simulated time: one queue with a single active consumer, and connections that fail.

What a lost consumer had is redelivered in front and in its order; confirms arrive late, in any order, or never.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from amqpworker.model.message import Delivery, Properties

START = 1_767_225_600_000
"""2026-01-01T00:00Z: the first moment of each simulation."""


class Timeline:
    """Simulated time in milliseconds, and what happens at which moment."""

    def __init__(self, seed: int) -> None:
        self.now = START
        self.random = random.Random(seed)
        self._numbers = count()
        self._events: list[tuple[int, int, Callable[[], object]]] = []

    def after(self, milliseconds: float, action: Callable[[], object]) -> None:
        """Have something happen later."""
        heapq.heappush(self._events, (self.now + max(0, round(milliseconds)), next(self._numbers), action))

    def between(self, least: int, most: int) -> int:
        """Return a random number of milliseconds."""
        return self.random.randint(least, most)

    def run(self, milliseconds: int) -> None:
        """Let time pass."""
        until = self.now + milliseconds
        while self._events and self._events[0][0] <= until:
            self.now, _, action = heapq.heappop(self._events)
            action()
        self.now = until


@dataclass(eq=False)
class Stored:
    """A message in the queue."""

    properties: Properties
    body: bytes
    redelivered: bool = False


class Client:
    """What a connection reports to; the simulated scheduler is one."""

    def on_subscribed(self, connection: Connection) -> None:
        """The broker has confirmed the consumer."""

    def on_delivery(self, connection: Connection, delivery: Delivery) -> None:
        """A message has arrived."""

    def on_lost(self, connection: Connection) -> None:
        """The connection was lost."""


@dataclass(eq=False)
class Connection:
    """One connection with its consumer; `is_deaf` if nothing from the broker arrives any more."""

    broker: Broker
    client: Client
    is_open: bool = True
    is_deaf: bool = False
    unacknowledged: dict[int, Stored] = field(default_factory=dict)
    _lanes: dict[str, int] = field(default_factory=dict)
    _under_way: dict[int, Callable[[], object]] = field(default_factory=dict)
    _numbers: Any = field(default_factory=count)

    def write(self, lane: str, action: Callable[[], object]) -> None:
        """Have something happen in the broker: in order per lane, which is a channel."""
        time = self.broker.time
        at = self._lanes[lane] = max(self._lanes.get(lane, 0), time.now + time.between(0, 5))
        number = next(self._numbers)
        self._under_way[number] = action
        time.after(at - time.now, lambda: self._arrive(number))

    def _arrive(self, number: int) -> None:
        if self.broker.has_alarm and self.is_open:
            self.broker.stalled.append(lambda: self._arrive(number))
        elif (action := self._under_way.pop(number, None)) is not None:
            action()

    def respond(self, action: Callable[[], object], lane: str = "", longest: int = 5) -> None:
        """Have something happen in the client; without a lane in any order."""
        time = self.broker.time
        at = time.now + time.between(0, longest)
        if lane:
            at = self._lanes[lane] = max(self._lanes.get(lane, 0), at)
        time.after(at - time.now, lambda: action() if self.is_open and not self.is_deaf else None)

    def acknowledge(self, tags: list[int]) -> None:
        """Acknowledge deliveries."""
        for tag in tags:
            self.write("consumer", lambda tag=tag: self.unacknowledged.pop(tag, None))  # type: ignore[misc]

    def close(self) -> None:
        """End the connection: of what is under way, some arrives before the next consumer is active, some after, some never."""
        if not self.is_open:
            return
        time = self.broker.time
        arrives = time.between(0, len(self._under_way))
        for number in sorted(self._under_way):
            action = self._under_way[number]
            if number >= min(self._under_way) + arrives:
                del self._under_way[number]
            elif time.random.random() < 0.5:
                del self._under_way[number]
                action()
        self.is_open = False
        self.broker.remove(self)
        time.after(time.between(0, 50), lambda: self.client.on_lost(self))


class Broker:
    """The queue of one scheduler name."""

    def __init__(self, time: Timeline) -> None:
        self.time = time
        self.ready: deque[Stored] = deque()
        self.consumers: list[Connection] = []
        self.has_alarm = self.held_a_token = False
        self.is_silent = False
        """Whether the broker confirms nothing for now, although it takes everything."""
        self._withheld: list[Callable[[], object]] = []
        self.stalled: list[Callable[[], object]] = []
        self._tags = count(1)

    def connect(self, client: Client) -> Connection:
        """Open a connection with a consumer."""
        connection = Connection(self, client)

        def consume() -> None:
            if not connection.is_open:
                return
            self.consumers.append(connection)
            connection.respond(lambda: client.on_subscribed(connection), "deliveries")
            self.deliver()

        connection.write("consumer", consume)
        return connection

    def remove(self, connection: Connection) -> None:
        """Redeliver what a lost consumer had."""
        if connection in self.consumers:
            self.consumers.remove(connection)
        lost = list(connection.unacknowledged.values())
        connection.unacknowledged.clear()
        for message in lost:
            message.redelivered = True
        self.ready.extendleft(reversed(lost))
        self.deliver()

    def put(self, properties: Properties, body: bytes) -> None:
        """Add a message."""
        self.held_a_token = self.held_a_token or b'"until"' in body
        self.ready.append(Stored(properties, body))
        self.deliver()

    def deliver(self) -> None:
        """Deliver what is ready to the active consumer."""
        while self.ready and self.consumers:
            connection, message = self.consumers[0], self.ready.popleft()
            tag = next(self._tags)
            connection.unacknowledged[tag] = message
            delivery = Delivery(tag, message.redelivered, "", "", message.properties, message.body)
            connection.respond(
                lambda connection=connection, delivery=delivery: connection.client.on_delivery(connection, delivery),  # type: ignore[misc]
                "deliveries",
            )

    def confirm(self, confirm: Callable[[], object]) -> None:
        """Confirm something now, or once the broker is not silent any more."""
        if self.is_silent:
            self._withheld.append(confirm)
        else:
            confirm()

    def end_silence(self) -> None:
        """Confirm what was taken meanwhile."""
        self.is_silent = False
        withheld, self._withheld = self._withheld, []
        for confirm in withheld:
            confirm()

    def end_alarm(self) -> None:
        """Take what was written meanwhile."""
        self.has_alarm = False
        stalled, self.stalled = self.stalled, []
        for action in stalled:
            action()

    def delete(self) -> None:
        """Delete the queue: all consumers are cancelled, and declare it again."""
        self.ready.clear()
        for connection in list(self.consumers):
            connection.unacknowledged.clear()
        for connection in list(self.consumers):
            connection.close()
