"""
What is paused, as the stream of pauses has it: which queues the process does not consume, which tasks wait.

Decides what a paused queue or task means for this process. The queues are left alone by the consumer; a message of a paused task
waits in the delay ladder, since other tasks of its queue run. Without the stream, what was known before counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from amqpworker.broker.consumer_channel import Subscription
from amqpworker.broker.stream_reader import FollowedStream, offset_of
from amqpworker.ipc.pipes import Report, Reporter, first_batch
from amqpworker.log.logger import get_logger
from amqpworker.model.message import Delivery
from amqpworker.model.outcome import Outcome
from amqpworker.model.paused import Kind, Paused, PauseEntry, PauseLog
from amqpworker.routing.queues import Plan
from amqpworker.worker import outcomes
from amqpworker.worker.service import Service

if TYPE_CHECKING:
    from amqpworker.task import Task

log = get_logger(__name__)


class Pauses(Service):
    """
    Reads what is paused, and reports to the supervisor what of it this process has, by its `subscriptions` and `tasks`.

    `pause` is called with all paused queues once they are known, and whenever they change. `on_entry` is called in the I/O thread
    of the follower, `gate` in any thread.
    """

    def __init__(
        self,
        tasks: Mapping[str, Task[Any, Any]],
        subscriptions: Sequence[Subscription],
        pause: Callable[[frozenset[str]], None],
        reporter: Reporter,
    ) -> None:
        self._queues = frozenset(one.queue for one in subscriptions)
        self._tasks = tasks
        self._pause = pause
        self._reporter = reporter
        self._log = PauseLog()
        self._is_known = False
        self._paused_queues = frozenset[str]()
        self._paused_tasks = frozenset[str]()
        self._reported: tuple[str, ...] = ()

    def stream(self, plan: Plan) -> FollowedStream:
        """Return the stream to follow."""
        return FollowedStream(plan.names.control, plan.if_declared(plan.control), "last", self.on_entry)

    # ---- in the I/O thread of the follower --------------------------------------------------------------------------

    def on_entry(self, delivery: Delivery) -> None:
        """Take an entry of the stream: an unreadable one changes nothing."""
        entry = PauseEntry.load(delivery.body)
        message_id = delivery.properties.message_id or ""
        if entry is None:
            log.warning("pauses_unreadable", id=message_id, effect="what was paused before stays paused")
        offset, before, last = offset_of(delivery), self._log.paused, self._log.offset
        if not self._log.add(offset, message_id, entry):
            return
        if offset <= last:
            self._report_forgotten(before, entry)
        queues, tasks = frozenset(self._log.paused.queues), frozenset(self._log.paused.tasks)
        if (queues, tasks) == (self._paused_queues, self._paused_tasks):
            return
        self._paused_queues, self._paused_tasks = queues, tasks
        log.info("pauses_changed", queues=sorted(queues), tasks=sorted(tasks))
        if self._is_known:
            self._pause(queues)

    def _report_forgotten(self, before: Paused, entry: PauseEntry | None) -> None:
        """Report what was paused and is not any more since the stream was deleted, except for what was resumed by its first entry."""
        change = None if entry is None else entry.change
        resumed = None if change is None else (change.kind, change.name)
        kinds: tuple[Kind, Kind] = ("queue", "task")
        lost = {
            kind: sorted(name for name in before.of(kind).keys() - self._log.paused.of(kind) if (kind, name) != resumed)
            for kind in kinds
        }
        if lost["queue"] or lost["task"]:
            log.warning("pauses_forgotten", queues=lost["queue"], tasks=lost["task"], effect="they run again")

    def on_ready(self) -> None:
        """Have all other queues consumed from now on: the stream was read, or cannot be for now."""
        self._is_known = True
        self._pause(self._paused_queues)

    # ---- from any thread --------------------------------------------------------------------------------------------

    def gate(self, delivery: Delivery, _headers: Mapping[str, int]) -> Outcome | None:
        """Return the outcome of a message whose task is paused, by whichever of its names."""
        if not self._paused_tasks:
            return None
        name = delivery.properties.type or ""
        task = self._tasks.get(name)
        if name in self._paused_tasks or (task is not None and task.name in self._paused_tasks):
            return outcomes.PAUSED
        return None

    # ---- in the main thread -----------------------------------------------------------------------------------------

    def beat(self, now: float) -> None:  # noqa: ARG002
        """Report what is paused when that changes."""
        names = first_batch(self._own())
        if names != self._reported and self._reporter.send(Report("paused", keys=names)):
            self._reported = names

    def _own(self) -> Iterator[str]:
        """Yield what is paused of what this process has."""
        yield from (f"queue {name}" for name in sorted(self._paused_queues & self._queues))
        yield from (f"task {name}" for name in sorted(self._paused_tasks) if name in self._tasks)
