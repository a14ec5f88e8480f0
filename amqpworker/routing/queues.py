"""
Which queues an app has, and what must exist before a message can go to one.

Decides what is declared: the queues that a task, `app.remote` or `app.queue` names, and nothing else, so that a slip
in `options(queue=…)` is an error at once. Declaring is left to `broker.declare`.
"""

from __future__ import annotations

from amqpworker.errors import ConfigError
from amqpworker.routing import topology
from amqpworker.routing.topology import Names, Topology

__all__ = ["LADDER", "Plan"]

LADDER = "the delay ladder"
_QUEUE = "queue "


class Plan:
    """The queues of an app in one namespace; `declare=False` plans nothing."""

    def __init__(self, namespace: str, declare: bool) -> None:
        self.names = Names(namespace)
        self.declare = declare
        self.queues: dict[str, tuple[str, ...]] = {}

    def add_queue(self, name: str) -> None:
        """
        Plan a queue.

        Raises:
            ConfigError: no queue can have this name.
        """
        if name not in self.queues:
            topology.check_queue_name(name, self.names.namespace)
            self.queues[name] = (_QUEUE + name,)

    def check_known(self, name: str) -> None:
        """
        Refuse a queue that the app does not name.

        Raises:
            ConfigError: it does not; the nearest names are told.
        """
        if name not in self.queues:
            import difflib  # slow to load, and seldom needed

            near = difflib.get_close_matches(name, self.queues, n=3)
            some = ", ".join(sorted(self.queues)[:10]) or "none"
            known = f"did you mean {' or '.join(near)}?" if near else f"it has {some}."
            raise ConfigError(
                f"The app has no queue {name!r}: {known} If its tasks are in a module that nothing imports, name it in "
                f"App(modules=[…]). A queue that only options(queue=…) names is made known by app.queue({name!r})."
            )

    def needs(self, queue: str, delayed: bool) -> tuple[str, ...]:
        """Return what must exist before a message for `queue` is published."""
        if not self.declare:
            return ()
        known = self.queues.get(queue, ())
        return (*known, LADDER) if delayed else known

    def worker_needs(self, queue: str) -> tuple[str, ...]:
        """Return what must exist before a worker consumes from `queue`: its retries need the ladder."""
        return self.needs(queue, delayed=True)

    def topology_of(self, need: str) -> Topology:
        """Return the topology that a need stands for."""
        namespace = self.names.namespace
        if need == LADDER:
            return topology.base(namespace) + topology.ladder(namespace)
        return topology.base(namespace) + topology.work_queue(namespace, need.removeprefix(_QUEUE))

    def whole(self) -> Topology:
        """Return everything that the app needs."""
        whole = self.topology_of(LADDER)
        for name in sorted(self.queues):
            whole += self.topology_of(_QUEUE + name)
        return whole
