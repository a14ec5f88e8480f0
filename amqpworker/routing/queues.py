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
    compared by identity.
    """

    name: str
    make_topology: Callable[[], Topology]

    def __str__(self) -> str:
        return self.name


class Plan:
    """The queues of an app in one namespace; with `declare=False` nothing is required."""

    def __init__(self, namespace: str, declare: bool) -> None:
        self.names = Names(namespace)
        self.declare = declare
        self.queues: dict[str, Requirement] = {}
        self.base = Requirement("the exchanges", lambda: topology.base(namespace))
        self.ladder = Requirement("the delay ladder", lambda: topology.base(namespace) + topology.ladder(namespace))
        self.control = Requirement(f"stream {self.names.control}", lambda: topology.control(namespace))
        self.cancelled = Requirement(
            f"stream {self.names.cancelled}", lambda: topology.base(namespace) + topology.cancelled(namespace)
        )

    def add_queue(self, name: str) -> None:
        """Add a queue, any number of times; raises ConfigError if a queue cannot have this name."""
        if name not in self.queues:
            namespace = self.names.namespace
            topology.check_queue_name(name, namespace)
            self.queues[name] = Requirement(
                f"queue {name}", lambda: topology.base(namespace) + topology.work_queue(namespace, name)
            )

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
        if not self.declare:
            return ()
        known = self.queues.get(queue)
        required = () if known is None else (known,)
        return (*required, self.ladder) if delayed else required

    def if_declared(self, requirement: Requirement) -> tuple[Requirement, ...]:
        """Return a requirement, or nothing if this app declares nothing."""
        return (requirement,) if self.declare else ()

    def requirements_of_check(self) -> tuple[Requirement, ...]:
        """Return what must exist before it can be checked whether messages can be sent."""
        return self.if_declared(self.base)

    def worker_requirements(self, queue: str) -> tuple[Requirement, ...]:
        """Return what must exist before a worker consumes from `queue`: its retries need the ladder."""
        return self.requirements(queue, delayed=True)

    def whole(self, schedulers: Iterable[str] = ()) -> Topology:
        """Return everything that the app and its schedulers need; raises ConfigError if a scheduler cannot have its name."""
        namespace = self.names.namespace
        parts = [self.queues[name].make_topology() for name in sorted(self.queues)]
        parts += [self.control.make_topology(), self.cancelled.make_topology()]
        for scheduler in schedulers:
            topology.check_scheduler_name(scheduler, namespace)
            parts.append(topology.scheduler(namespace, scheduler))
        return sum(parts, start=self.ladder.make_topology())
