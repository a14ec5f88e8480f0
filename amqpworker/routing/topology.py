"""
The exchanges, queues and bindings that amqpworker needs, as values: their names, arguments and order.

The only module that makes names, and the only one that turns seconds into the broker's milliseconds. It declares
nothing: `broker.declare` walks what is made here. Each value is fixed once and for all, because a broker refuses to
declare a queue again with other arguments (406).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from amqpworker.errors import ConfigError
from amqpworker.model.message import MOST_SHORT_BYTES, fits_short_string, wait_header

__all__ = [
    "DEFAULT_NAMESPACE",
    "LEVELS",
    "UNIT",
    "Binding",
    "Exchange",
    "Names",
    "Queue",
    "Topology",
    "base",
    "check_namespace",
    "check_queue_name",
    "dead_queue",
    "ladder",
    "work_queue",
]

DEFAULT_NAMESPACE = "amqpworker"

LEVELS = 31
"""How many levels the delay ladder has."""

UNIT = 0.125
"""Seconds that a message waits in level 0; each further level takes twice as long as the one below."""

WORK_LIMIT = 200
ENDLESS = 2_000_000_000

_OWN_SUFFIXES = (".dead", ".due")


@dataclass(frozen=True, slots=True)
class Exchange:
    """A durable exchange."""

    name: str
    type: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable queue."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Binding:
    """What brings messages of the exchange `source` into `queue`."""

    source: str
    queue: str
    routing_key: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Topology:
    """
    What has to exist, in the order to declare it.

    Iterating gives exchanges, then queues, then bindings. An exchange stands behind its alternate exchange, and what
    leads new messages in is bound last, when all that they may need afterwards is there.
    """

    exchanges: tuple[Exchange, ...] = ()
    queues: tuple[Queue, ...] = ()
    bindings: tuple[Binding, ...] = ()

    def __add__(self, other: Topology) -> Topology:
        return Topology(
            _distinct((*self.exchanges, *other.exchanges)),
            _distinct((*self.queues, *other.queues)),
            _distinct((*self.bindings, *other.bindings)),
        )

    def __iter__(self) -> Iterator[Exchange | Queue | Binding]:
        yield from self.exchanges
        yield from self.queues
        yield from self.bindings


@dataclass(frozen=True, slots=True)
class Names:
    """The names of our exchanges, and of our queues of the same name, in one namespace."""

    namespace: str = DEFAULT_NAMESPACE

    @property
    def tasks(self) -> str:
        """The exchange that takes new messages."""
        return f"{self.namespace}.tasks"

    @property
    def due(self) -> str:
        """The exchange that takes messages whose wait is over."""
        return f"{self.namespace}.due"

    @property
    def dead(self) -> str:
        """The exchange that takes dead letters."""
        return f"{self.namespace}.dead"

    @property
    def parked(self) -> str:
        """The exchange and queue that take what has no other place to go."""
        return f"{self.namespace}.parked"

    @property
    def control(self) -> str:
        """A name kept free for telling all processes of cancels and pauses; nothing makes it so far."""
        return f"{self.namespace}.control"

    def level(self, number: int) -> str:
        """Return the exchange and queue of this level of the delay ladder."""
        return f"{self.namespace}.delay.{number:02d}"

    def all(self) -> frozenset[str]:
        """Return every name that we use for ourselves."""
        levels = (self.level(number) for number in range(LEVELS))
        return frozenset((self.tasks, self.due, self.dead, self.parked, self.control, *levels))


def dead_queue(name: str) -> str:
    """Return the queue that keeps the dead letters of this work queue."""
    return f"{name}.dead"


def base(namespace: str) -> Topology:
    """Return what every work queue stands on: where new, due, dead and parked messages go."""
    names = Names(namespace)
    exchanges = (
        Exchange(names.due, "direct", {"alternate-exchange": names.parked}),
        Exchange(names.dead, "direct", {"alternate-exchange": names.parked}),
        # Without an alternate exchange, so that what has no queue is returned to its sender.
        Exchange(names.tasks, "direct"),
    )
    return _parking(names) + Topology(exchanges)


def ladder(namespace: str) -> Topology:
    """
    Return the delay ladder down to where due messages go.

    Each level is a headers exchange and a queue. A message that has the level's header waits in the queue and is
    dead-lettered to the level below; one that has not falls through to it, by the alternate exchange.
    """
    names = Names(namespace)
    due = Topology((Exchange(names.due, "direct", {"alternate-exchange": names.parked}),))
    below = names.due
    exchanges, queues, bindings = [], [], []
    for number in range(LEVELS):
        name = names.level(number)
        exchanges.append(Exchange(name, "headers", {"alternate-exchange": below}))
        queues.append(Queue(name, _level_arguments(number, below)))
        # A void value matches on presence: whatever the type that a foreign client gives the header.
        bindings.append(Binding(name, name, arguments={"x-match": "all", wait_header(number): None}))
        below = name
    return _parking(names) + due + Topology(tuple(exchanges), tuple(queues), tuple(bindings))


def work_queue(namespace: str, name: str) -> Topology:
    """Return one work queue with its dead letters; the exchanges are those of `base`."""
    names = Names(namespace)
    dead = dead_queue(name)
    arguments = {
        **_dead_lettering(names.dead),
        "x-dead-letter-routing-key": name,
        "x-delivery-limit": WORK_LIMIT,
    }
    return Topology(
        queues=(Queue(dead, _keeping()), Queue(name, arguments)),
        bindings=(
            Binding(names.dead, dead, name),
            Binding(names.due, name, name),
            Binding(names.tasks, name, name),
        ),
    )


def check_queue_name(name: str, namespace: str = DEFAULT_NAMESPACE) -> None:
    """
    Make sure that a work queue can have this name.

    Raises:
        ConfigError: AMQP refuses the name, or it is kept for queues that amqpworker makes.
    """
    _check_name(name, "queue", longest_suffix=dead_queue(""))
    if name.endswith(_OWN_SUFFIXES):
        raise ConfigError(f"The queue name {name!r} ends in .dead or .due: amqpworker makes such queues itself.")
    if name in Names(namespace).all():
        raise ConfigError(f"The queue name {name!r} is one of amqpworker's own: choose another.")


def check_namespace(namespace: str) -> None:
    """
    Make sure that exchanges and queues can have names in this namespace.

    Raises:
        ConfigError: AMQP refuses such names.
    """
    _check_name(namespace, "namespace", longest_suffix=Names("").level(0))


def _parking(names: Names) -> Topology:
    return Topology(
        (Exchange(names.parked, "fanout"),),
        (Queue(names.parked, _keeping()),),
        (Binding(names.parked, names.parked),),
    )


def _keeping() -> dict[str, Any]:
    """Return the arguments of a queue that keeps messages for people to look at."""
    return {"x-queue-type": "quorum", "x-delivery-limit": ENDLESS}


def _dead_lettering(exchange: str) -> dict[str, Any]:
    """Return the arguments without which a broker falls back to at-most-once, with no more than a line in its log."""
    return {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": exchange,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


def _level_arguments(number: int, below: str) -> dict[str, Any]:
    # No dead-letter routing key: a message keeps its own, the work queue's name, all the way down.
    return {
        **_dead_lettering(below),
        "x-message-ttl": round(UNIT * 1000) * 2**number,
        "x-delivery-limit": ENDLESS,
    }


def _check_name(name: object, what: str, longest_suffix: str) -> None:
    if not isinstance(name, str) or not name:
        raise ConfigError(f"A {what} name is a text that is not empty, and not {name!r}.")
    if not fits_short_string(name + longest_suffix):
        room = MOST_SHORT_BYTES - len(longest_suffix)
        raise ConfigError(f"The {what} name {name!r:.60} does not fit: at most {room} bytes of UTF-8.")
    if any(unicodedata.category(character) == "Cc" for character in name):
        raise ConfigError(f"The {what} name {name!r} has control characters.")
    if f"{name}.".startswith("amq."):
        raise ConfigError(f"The {what} name {name!r} begins with 'amq.', which AMQP keeps for brokers.")


_Item = TypeVar("_Item")


def _distinct(items: Iterable[_Item]) -> tuple[_Item, ...]:
    kept: list[_Item] = []
    kept.extend(item for item in items if item not in kept)
    return tuple(kept)
