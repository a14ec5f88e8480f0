"""
Events about settled deliveries, and the listeners that are called with them: plain callables.

Decides how listeners are called. `worker.settle` emits the events, `worker.counters` counts them, and `worker.hook_threads` calls
the app's hooks. Metrics or a live view would be further listeners: internal, not a public API.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from amqpworker.log.logger import get_logger
from amqpworker.text import name_of

if TYPE_CHECKING:
    from amqpworker.model.message import Delivery, Publication
    from amqpworker.model.outcome import Outcome
    from amqpworker.worker.context import Run

log = get_logger(__name__)


class Settled(NamedTuple):
    """
    A delivery that was settled: by which `outcome`, and when this was decided (`at`, seconds since the epoch).

    `outcome` is one of the closed set in `model.outcome`; it is `Requeue` if the outcome of the task could not be settled. `run`
    is None if the task was not started. `letter` is the confirmed dead letter if the outcome is `Dead`. `result_refused` is whether
    the store can never hold the result. A delivery whose channel is lost before it is settled has no event: the broker redelivers it.
    """

    delivery: Delivery
    outcome: Outcome
    run: Run | None
    at: float
    letter: Publication | None = None
    result_refused: bool = False

    @property
    def queue(self) -> str:
        """The queue that the message came from."""
        return self.delivery.queue

    @property
    def task(self) -> str | None:
        """The name of the task; as the message has it, if the task was not started."""
        return self.delivery.properties.type if self.run is None else self.run.task

    @property
    def id(self) -> str | None:
        """The id of the message; if its sender gave it none, that of the run."""
        return self.delivery.properties.message_id if self.run is None else self.run.id

    @property
    def attempt(self) -> int | None:
        """Which attempt the run was."""
        return None if self.run is None else self.run.attempt

    @property
    def seconds(self) -> float | None:
        """How long the task has run."""
        return None if self.run is None else round(max(0.0, self.at - self.run.started), 4)


Listener: TypeAlias = Callable[[Sequence[Settled]], object]
"""Called in the consumer's I/O thread, after the acknowledgements were sent: it must return soon, and not wait for anything."""


class Listeners:
    """The listeners, which are called in the order in which they were added."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self._failed: list[Listener] = []

    def add(self, listener: Listener) -> None:
        """Call this listener, too, from now on."""
        self._listeners.append(listener)

    def emit(self, events: Sequence[Settled]) -> None:
        """Call each listener; the first failure of each is logged, and none affects a message."""
        for listener in self._listeners:
            try:
                listener(events)
            except BaseException as error:  # whatever it raises must not end the I/O thread
                if listener not in self._failed:
                    self._failed.append(listener)
                    log.error("listener_failed", listener=name_of(listener), exc_info=error)
