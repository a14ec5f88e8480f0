"""
Which queues an app has, and what must exist before a message can go to one.

Decides what is declared: the queues that a task, `app.remote` or `app.queue` names, and no others, so that a typo in
`options(queue=…)` is an error at once. `broker.declarer` declares them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from amqpworker.errors import ConfigError
from amqpworker.routing import topology
from amqpworker.routing.topology import Names, Topology


@dataclass(frozen=True, eq=False)
class Requirement:
    """
    A part of the topology that must exist before a message is published, or a queue is consumed.

    A plan makes one for each of its queues and streams, one for the delay ladder and one for the exchanges alone; they are
    compared by identity. If the queue has a bound, `bounded` is the exchange and the routing key by which messages meet it. A
    bounded queue that the app leaves to others has a requirement as well, which declares nothing.
    """

    name: str
    make_topology: Callable[[], Topology]
    bounded: tuple[str, str] | None = None
    declares: bool = True

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class PlannedQueue:
    """A queue of an app: its bound, and whether it is declared; None is what nothing was stated about."""

    max_length: int | None = None
    declare: bool | None = None

    def and_also(self, name: str, max_length: int | None, declare: bool | None) -> PlannedQueue:
        """Return the queue with what else is stated about it; raises ConfigError for something different from before."""
        for option, before, now in (
            ("max_length", self.max_length, max_length),
            ("declare", self.declare, declare),
        ):
            if before is not None and now is not None and before != now:
                raise ConfigError(
                    f"Queue {name!r} has {option}={before} already, and now {option}={now}: a queue has only one value."
                )
        return PlannedQueue(
            self.max_length if max_length is None else max_length, self.declare if declare is None else declare
        )


class Plan:
    """The queues of an app in one namespace; with `declare=False` nothing is required unless a queue states otherwise."""

    def __init__(self, namespace: str, declare: bool) -> None:
        self.names = Names(namespace)
        self.declare = declare
        self.queues: dict[str, PlannedQueue] = {}
        self.base = Requirement("the exchanges", lambda: topology.base(namespace))
        self.ladder = Requirement("the delay ladder", lambda: topology.base(namespace) + topology.ladder(namespace))
        # By queue: what must exist before a message goes to it, apart from the ladder.
        self._required: dict[str, tuple[Requirement, ...]] = {}
        self.control = Requirement(f"stream {self.names.control}", lambda: topology.control(namespace))
        self.cancelled = Requirement(
            f"stream {self.names.cancelled}", lambda: topology.base(namespace) + topology.cancelled(namespace)
        )

    def add_queue(self, name: str, max_length: int | None = None, declare: bool | None = None) -> None:
        """
        Add a queue, any number of times; `None` states nothing about it.

        Raises ConfigError if a queue cannot have this name or bound, or if the app has stated something else about it before.
        """
        before = self.queues.get(name)
        if before is None:
            topology.check_queue_name(name, self.names.namespace)
            before = PlannedQueue()
        if max_length is not None:
            topology.check_max_length(max_length)
        queue = before.and_also(name, max_length, declare)
        if queue != before or name not in self.queues:
            self.queues[name] = queue
            self._required[name] = self._requirements_of(name, queue)

    def _requirements_of(self, name: str, queue: PlannedQueue) -> tuple[Requirement, ...]:
        bounded = None if queue.max_length is None else (self.names.tasks, name)
        if self.declare if queue.declare is None else queue.declare:
            return (Requirement(f"queue {name}", lambda: self._topology_of(name), bounded),)
        return () if bounded is None else (Requirement(f"queue {name}", Topology, bounded, declares=False),)

    def _topology_of(self, name: str) -> Topology:
        namespace = self.names.namespace
        return topology.base(namespace) + topology.work_queue(namespace, name, self.queues[name].max_length)

    def due_queue(self, name: str) -> str | None:
        """Return the queue beside a bounded one, which has what was accepted before; None if the app states no bound for it."""
        queue = self.queues.get(name)
        return None if queue is None or queue.max_length is None else topology.due_queue(name)

    def check_known(self, name: str) -> None:
        """Raise ConfigError if the app does not name a queue, with the names that are similar."""
        if name not in self.queues:
            import difflib  # slow to load, and seldom needed

            near = difflib.get_close_matches(name, self.queues, n=3)
            some = ", ".join(sorted(self.queues)[:10]) or "none"
            known = f"did you mean {' or '.join(near)}?" if near else f"it has {some}."
            raise ConfigError(
                f"The app has no queue {name!r}: {known} If its tasks are in a module that nothing imports, name it in "
                f"App(modules=[…]). A queue that only options(queue=…) names is made known by app.queue({name!r})."
            )

    def requirements(self, queue: str, delayed: bool) -> tuple[Requirement, ...]:
        """Return what must exist before a message for `queue` is published."""
        required = self._required.get(queue, ())
        return (*required, self.ladder) if delayed and self.declare else required

    def if_declared(self, requirement: Requirement) -> tuple[Requirement, ...]:
        """Return a requirement, or nothing if this app declares nothing."""
        return (requirement,) if self.declare else ()

    def requirements_of_check(self) -> tuple[Requirement, ...]:
        """Return what must exist before it can be checked whether messages can be sent."""
        return self.if_declared(self.base)

    def worker_requirements(self, queue: str) -> tuple[Requirement, ...]:
        """Return what must exist before a worker consumes from `queue`: its retries need the ladder."""
        return tuple(one for one in self.requirements(queue, delayed=True) if one.declares)

    def declared_queues(self) -> list[str]:
        """Return the queues of the app, by name, without those that it leaves to other apps (`declare=False`)."""
        return sorted(name for name, queue in self.queues.items() if queue.declare is not False)

    def whole(self, schedulers: Iterable[str] = ()) -> Topology:
        """
        Return everything that the app and its schedulers need, apart from queues which it leaves to other apps.

        Raises ConfigError if a scheduler cannot have its name.
        """
        namespace = self.names.namespace
        parts = [self._topology_of(name) for name in self.declared_queues()]
        parts += [self.control.make_topology(), self.cancelled.make_topology()]
        for scheduler in schedulers:
            topology.check_scheduler_name(scheduler, namespace)
            parts.append(topology.scheduler(namespace, scheduler))
        return sum(parts, start=self.ladder.make_topology())
