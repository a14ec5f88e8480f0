"""
The exchanges, queues and bindings that amqpworker needs, as values: their names, arguments and order.

The only module that makes names, and the only one that converts seconds to the broker's milliseconds. The values never
change, since a broker refuses to declare a queue again with other arguments (406).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from amqpworker.errors import ConfigError
from amqpworker.model.headers import wait_header
from amqpworker.model.message import MAX_SHORT_BYTES, fits_short_string

DEFAULT_NAMESPACE = "amqpworker"
DEFAULT_SCHEDULER = "main"

LEVELS = 31
"""The number of levels of the delay ladder."""

UNIT = 0.125
"""Seconds that a message waits in level 0; each further level takes twice as long as the one below."""

WORK_LIMIT = 200
ENDLESS = 2_000_000_000
BOUND = "x-max-length"
MAX_LENGTH = 2_000_000_000
"""The largest bound of a queue."""

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
    """A binding of `queue` to the exchange `source`."""

    source: str
    queue: str
    routing_key: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unbinding:
    """A binding of `queue` to the exchange `source` that must not exist: declaring removes it."""

    source: str
    queue: str
    routing_key: str = ""


Part: TypeAlias = Exchange | Queue | Binding | Unbinding


@dataclass(frozen=True, slots=True)
class Topology:
    """
    What must exist, and which bindings must not, in the order to declare it.

    Iterating yields exchanges, then queues, then bindings, then bindings to remove. An exchange follows its alternate exchange,
    and the binding for new messages is the last, so what these messages need exists before they arrive. A binding is removed
    once the one in its place exists, so no message is without a queue in between.
    """

    exchanges: tuple[Exchange, ...] = ()
    queues: tuple[Queue, ...] = ()
    bindings: tuple[Binding, ...] = ()
    unbindings: tuple[Unbinding, ...] = ()

    def __add__(self, other: Topology) -> Topology:
        return Topology(
            _distinct((*self.exchanges, *other.exchanges)),
            _distinct((*self.queues, *other.queues)),
            _distinct((*self.bindings, *other.bindings)),
            _distinct((*self.unbindings, *other.unbindings)),
        )

    def __iter__(self) -> Iterator[Part]:
        yield from self.exchanges
        yield from self.queues
        yield from self.bindings
        yield from self.unbindings


@dataclass(frozen=True, slots=True)
class Names:
    """The names of our exchanges, and of our queues of the same name, in one namespace."""

    namespace: str = DEFAULT_NAMESPACE

    @property
    def tasks(self) -> str:
        """The exchange for new messages."""
        return f"{self.namespace}.tasks"

    @property
    def due(self) -> str:
        """The exchange for messages whose delay is over."""
        return f"{self.namespace}.due"

    @property
    def dead(self) -> str:
        """The exchange for dead letters."""
        return f"{self.namespace}.dead"

    @property
    def parked(self) -> str:
        """The exchange and queue for messages that no other queue is bound for."""
        return f"{self.namespace}.parked"

    @property
    def control(self) -> str:
        """The exchange and stream for what is paused."""
        return f"{self.namespace}.control"

    @property
    def cancelled(self) -> str:
        """The stream for cancelled messages."""
        return f"{self.namespace}.cancelled"

    @property
    def schedule(self) -> str:
        """The exchange for the tokens and commands of schedulers."""
        return f"{self.namespace}.schedule"

    def schedule_queue(self, scheduler: str) -> str:
        """Return the queue that all schedulers of this name consume, of which one is active."""
        return f"{self.schedule}.{scheduler}"

    def level(self, number: int) -> str:
        """Return the exchange and queue of this level of the delay ladder."""
        return f"{self.namespace}.delay.{number:02d}"

    def all(self) -> frozenset[str]:
        """Return each name that amqpworker uses itself."""
        levels = (self.level(number) for number in range(LEVELS))
        ours = (self.tasks, self.due, self.dead, self.parked, self.control, self.cancelled, self.schedule)
        return frozenset((*ours, *levels))


def dead_queue(name: str) -> str:
    """Return the name of the dead-letter queue of this work queue."""
    return f"{name}.dead"


def due_queue(name: str) -> str:
    """Return the name of the queue beside this work queue, if it is bounded, for messages that were accepted before."""
    return f"{name}.due"


def dead_queue_of(name: str) -> str:
    """Return the dead-letter queue of a work queue; a dead-letter or parking queue is returned as it is."""
    return name if name.endswith((dead_queue(""), Names("").parked)) else dead_queue(name)


def work_queue_of(queue: str, routing_key: str) -> str:
    """Return the work queue of a message with this routing key that is in a dead-letter or parking queue."""
    suffix = dead_queue("")
    return queue.removesuffix(suffix) if queue.endswith(suffix) else routing_key


def base(namespace: str) -> Topology:
    """Return what each work queue needs: the exchanges for new, due, dead and parked messages."""
    names = Names(namespace)
    exchanges = (
        Exchange(names.due, "direct", {"alternate-exchange": names.parked}),
        Exchange(names.dead, "direct", {"alternate-exchange": names.parked}),
        # Without an alternate exchange, so a message without a queue is returned to its sender.
        Exchange(names.tasks, "direct"),
    )
    return _parking(names) + Topology(exchanges)


def ladder(namespace: str) -> Topology:
    """
    Return the delay ladder, down to the exchange for due messages.

    Each level is a headers exchange and a queue. A message with the level's header waits in the queue and is
    dead-lettered to the level below; the alternate exchange passes any other message to the level below at once.
    """
    names = Names(namespace)
    due = Topology((Exchange(names.due, "direct", {"alternate-exchange": names.parked}),))
    below = names.due
    exchanges, queues, bindings = [], [], []
    for number in range(LEVELS):
        name = names.level(number)
        exchanges.append(Exchange(name, "headers", {"alternate-exchange": below}))
        queues.append(Queue(name, _level_arguments(number, below)))
        # A void value matches if the header is present, of any type that another client gives it.
        bindings.append(Binding(name, name, arguments={"x-match": "all", wait_header(number): None}))
        below = name
    return _parking(names) + due + Topology(tuple(exchanges), tuple(queues), tuple(bindings))


def work_queue(namespace: str, name: str, max_length: int | None = None) -> Topology:
    """
    Return one work queue with its dead-letter queue; `base` has the exchanges.

    With a bound, messages that were accepted before, which are due after a delay or retried, have a queue of their own beside
    it. A full queue would refuse them, and they would stop the delays of all queues.
    """
    names = Names(namespace)
    dead = dead_queue(name)
    arguments = {
        **_dead_lettering(names.dead),
        "x-dead-letter-routing-key": name,
        "x-delivery-limit": WORK_LIMIT,
    }
    dead_letters, new_work = Binding(names.dead, dead, name), Binding(names.tasks, name, name)
    if max_length is None:
        return Topology(
            queues=(Queue(dead, _keeping()), Queue(name, arguments)),
            bindings=(dead_letters, Binding(names.due, name, name), new_work),
        )
    due = due_queue(name)
    return Topology(
        queues=(Queue(dead, _keeping()), Queue(due, arguments), Queue(name, {**arguments, BOUND: max_length})),
        bindings=(dead_letters, Binding(names.due, due, name), new_work),
        unbindings=(Unbinding(names.due, name, name),),
    )


DISCONNECTED_TIMEOUT = "x-consumer-disconnected-timeout"
# RabbitMQ 4.3 keeps a consumer whose node is lost active for this many milliseconds, by default a minute; older versions ignore it.
TAKEOVER_AFTER = 500


def scheduler(namespace: str, name: str) -> Topology:
    """Return what the schedulers of this name need beside the queues of their tasks."""
    names = Names(namespace)
    queue = names.schedule_queue(name)
    return Topology(
        (Exchange(names.schedule, "direct"),),
        (Queue(queue, {**_keeping(), "x-single-active-consumer": True, DISCONNECTED_TIMEOUT: TAKEOVER_AFTER}),),
        (Binding(names.schedule, queue, name),),
    )


# A stream drops its oldest messages by whole segments, and only when a new one begins: so they are small.
SEGMENT_BYTES = 1_000_000
CONTROL_BYTES = 16_000_000
CANCELLED_AGE = "8D"


def control(namespace: str) -> Topology:
    """
    Return the stream of what is paused, for all worker processes, and its exchange.

    It has no age: however long ago the last change was, a worker that starts must find it.
    """
    name = Names(namespace).control
    return Topology(
        (Exchange(name, "fanout"),),
        (Queue(name, {**_stream(), "x-max-length-bytes": CONTROL_BYTES}),),
        (Binding(name, name),),
    )


def cancelled(namespace: str) -> Topology:
    """
    Return the stream of cancelled messages, for all worker processes; `base` has its exchanges.

    It is bound like a work queue: any sender may cancel, and what waited in the delay ladder arrives as due.
    """
    names = Names(namespace)
    name = names.cancelled
    return Topology(
        queues=(Queue(name, {**_stream(), "x-max-age": CANCELLED_AGE}),),
        bindings=(Binding(names.due, name, name), Binding(names.tasks, name, name)),
    )


def check_queue_name(name: str, namespace: str = DEFAULT_NAMESPACE) -> None:
    """Check the name of a work queue; raises ConfigError if AMQP does not allow it, or if it is reserved."""
    _check_name(name, "queue", longest_suffix=dead_queue(""))
    if name.endswith(_OWN_SUFFIXES):
        raise ConfigError(f"Queue name must not end in .dead or .due, which amqpworker uses itself, got {name!r}.")
    names = Names(namespace)
    if name in names.all() or name.startswith(names.schedule_queue("")):
        raise ConfigError(f"Queue name {name!r} is reserved for amqpworker: choose another.")


def check_max_length(max_length: object) -> None:
    """Check the bound of a work queue; raises ConfigError if it is not a number of messages."""
    if isinstance(max_length, bool) or not isinstance(max_length, int) or not 1 <= max_length <= MAX_LENGTH:
        raise ConfigError(f"max_length={max_length!r:.60}: the bound of a queue is an int from 1 to {MAX_LENGTH}.")


def check_scheduler_name(name: str, namespace: str = DEFAULT_NAMESPACE) -> None:
    """Check the name of a scheduler; raises ConfigError if AMQP does not allow its queue."""
    _check_name(name, "scheduler", longest_suffix=Names(namespace).schedule_queue(""))
    if name.startswith("-"):
        raise ConfigError(f"Scheduler name must not begin with '-', as options do, got {name!r}.")


def check_namespace(namespace: str) -> None:
    """Check a namespace, which names begin with; raises ConfigError if AMQP does not allow such names."""
    _check_name(namespace, "namespace", longest_suffix=max(Names("").all(), key=len))


def _parking(names: Names) -> Topology:
    return Topology(
        (Exchange(names.parked, "fanout"),),
        (Queue(names.parked, _keeping()),),
        (Binding(names.parked, names.parked),),
    )


def _keeping() -> dict[str, Any]:
    """Return the arguments of a queue that keeps messages until they are moved by hand."""
    return {"x-queue-type": "quorum", "x-delivery-limit": ENDLESS}


def _stream() -> dict[str, Any]:
    return {"x-queue-type": "stream", "x-stream-max-segment-size-bytes": SEGMENT_BYTES}


def _dead_lettering(exchange: str) -> dict[str, Any]:
    """Return the arguments without which a broker dead-letters at most once, and only logs that it does."""
    return {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": exchange,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


def _level_arguments(number: int, below: str) -> dict[str, Any]:
    # No dead-letter routing key: a message keeps its own, the name of its work queue, on each level.
    return {
        **_dead_lettering(below),
        "x-message-ttl": round(UNIT * 1000) * 2**number,
        "x-delivery-limit": ENDLESS,
    }


def _check_name(name: object, what: str, longest_suffix: str) -> None:
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{what.capitalize()} name must be a non-empty string, got {name!r:.60}.")
    if not fits_short_string(name + longest_suffix):
        room = MAX_SHORT_BYTES - len(longest_suffix)
        raise ConfigError(f"{what.capitalize()} name must be at most {room} bytes of UTF-8, got {name!r:.60}.")
    if any(unicodedata.category(character) == "Cc" for character in name):
        raise ConfigError(f"{what.capitalize()} name must not contain control characters, got {name!r}.")
    if f"{name}.".startswith("amq."):
        raise ConfigError(
            f"{what.capitalize()} name must not begin with 'amq.', which AMQP reserves for brokers, got {name!r}."
        )


_Item = TypeVar("_Item")


def _distinct(items: Iterable[_Item]) -> tuple[_Item, ...]:
    distinct: list[_Item] = []
    distinct.extend(item for item in items if item not in distinct)
    return tuple(distinct)
