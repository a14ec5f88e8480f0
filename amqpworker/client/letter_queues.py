"""
Which queues with dead letters are read, and what is reported of one that does not exist.

Decides that parked messages are separate: a verb is about dead letters, or about parked messages.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from amqpworker.errors import AmqpWorkerError, ConfigError
from amqpworker.routing.envelope import publication_of_replay
from amqpworker.routing.topology import check_queue_name, dead_queue_of, work_queue_of

if TYPE_CHECKING:
    from amqpworker.broker.tool_connection import ToolConnection
    from amqpworker.model.dead_letter import DeadLetter
    from amqpworker.model.message import Publication
    from amqpworker.routing.queues import Plan
    from amqpworker.routing.topology import Names


def letter_queues(plan: Plan, queues: Sequence[str], parked: bool = False) -> list[str]:
    """Return the queues to read: those of these work queues, else of all of the app's; or the one of parked messages."""
    if parked:
        if queues:
            raise ConfigError("Parked messages are in one queue for all work queues: leave out the queue.")
        return [plan.names.parked]
    return [dead_queue_of(name) for name in dict.fromkeys(queues or sorted(plan.queues))]


def no_such_queue(plan: Plan, broker: ToolConnection, name: str) -> ConfigError:
    """Return the error for a queue that does not exist, with what the app or the broker has instead."""
    work_queue = work_queue_of(name, name)
    known = [*plan.queues, plan.names.parked]
    if work_queue in plan.queues:
        return ConfigError(f"Queue {name!r} does not exist yet: a worker or `amqpworker topology declare` creates it.")
    import difflib  # slow to load, and seldom needed

    if near := difflib.get_close_matches(work_queue, [name for name in known if name != work_queue], n=1):
        return ConfigError(f"Queue {name!r} does not exist: did you mean {near[0]!r}?")
    with suppress(AmqpWorkerError):  # this user may not read that queue either
        if work_queue != name and broker.depth(work_queue) is not None:
            return ConfigError(
                f"Queue {name!r} does not exist, but queue {work_queue!r} does: another program may have "
                f"declared it. `amqpworker topology declare` creates both."
            )
    return ConfigError(f"Queue {name!r} does not exist: check its name, and the virtual host of the URL.")


class ReplayTargets:
    """
    The work queues that letters are replayed to.

    Each is checked once, `to` at once; it must not be a name that is reserved for amqpworker. The broker parks what no queue takes,
    so publishing would not show that a queue does not exist.
    """

    def __init__(self, broker: ToolConnection, names: Names, to: str | None) -> None:
        self._broker = broker
        self._names = names
        self._to = to
        self._exists: dict[str, bool] = {}
        if to is not None:
            check_queue_name(to, names.namespace)
            self._check(to)

    def copy_of(self, letter: DeadLetter) -> Publication:
        """Return what a letter becomes when it is to run again; raises ConfigError if its queue does not exist."""
        routing_key = letter.message.routing_key
        target = work_queue_of(letter.queue, routing_key) if self._to is None else self._to
        self._check(target)
        if target == letter.queue:
            raise ConfigError(f"It is not known in which queue {letter.name!r} was: name the one to replay it to.")
        return publication_of_replay(letter, target, self._names, time.time())

    def _check(self, target: str) -> None:
        """Raise ConfigError if a queue does not exist."""
        if target not in self._exists:
            self._exists[target] = self._broker.depth(target) is not None
        if not self._exists[target]:
            hint = "declare it, or name another queue to replay them to" if self._to is None else "check its name"
            raise ConfigError(f"Queue {target!r}, to which letters are to be replayed, does not exist: {hint}.")
