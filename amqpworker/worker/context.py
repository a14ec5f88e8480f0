"""
What a task may know of the message it runs for.

Decides nothing: `executor` makes a `Run` for each delivery that it admits, `isolation.program` for each request, and `current()`
returns it inside the task.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from amqpworker.errors import NoCurrentTask
from amqpworker.log.logger import task_context
from amqpworker.model.headers import EARLIEST, EPOCH, LATEST, MILLISECOND, NOMINAL, SCHEDULE, time_of
from amqpworker.model.progress import encode_progress, progress_of
from amqpworker.policies.foreign_names import RUN_ATTRIBUTES, unknown_attribute
from amqpworker.policies.retry import RunInfo
from amqpworker.policies.time_limit import UNLIMITED, TimeLimit
from amqpworker.routing.envelope import user_headers

if TYPE_CHECKING:
    from amqpworker.model.message import Delivery, Headers
    from amqpworker.task import Task


class Reported(NamedTuple):
    """The latest `progress` that a run has reported, as JSON, when one was passed on last (monotonic), and whether this one was."""

    progress: bytes
    put_at: float
    is_put: bool


@dataclass(slots=True, eq=False, repr=False)
class Run:
    """One run of a task: its message, and which attempt this is."""

    registered: Task[Any, Any]
    delivery: Delivery
    id: str
    attempt: int
    started: float
    first_run: float
    _is_cancelled: Callable[[Delivery], bool] | None = None
    """Returns whether the message of a run is cancelled; None if that is never known here."""
    message_limit: TimeLimit | None = None
    """The limits of this run if its message has its own, which takes the place of the task's."""
    on_progress: Callable[[Run, bytes], None] | None = None
    """Is called with the JSON of what the task reports; None if no store has it."""
    reported: Reported | None = field(default=None, init=False)
    """What it has reported last; None if it has reported nothing."""
    deadline: float | None = field(default=None, init=False)
    """When its time limit is over, by the monotonic clock; None if it has no limit."""
    returned: Any = field(init=False)
    """What the task has returned, kept for the hooks of its success; not set if it has none, or runs elsewhere."""

    @property
    def task(self) -> str:
        """The task's name."""
        return self.registered.name

    @property
    def time_limit(self) -> TimeLimit:
        """The limits of this run: its message's, or else the task's."""
        return self.message_limit or self.registered.time_limit

    @property
    def limit_ends(self) -> float:
        """When its first time limit is over, in seconds since the epoch; 0 if it has none."""
        limit = self.message_limit or self.registered.time_limit
        return 0.0 if limit is UNLIMITED else self.started + limit.first

    @property
    def queue(self) -> str:
        """The queue that the message came from."""
        return self.delivery.queue

    @property
    def time_left(self) -> float | None:
        """The seconds until its time limit is reached, None if it has none."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    @property
    def last_attempt(self) -> bool:
        """
        Whether a failure of this run is not retried any more, by the `stop` of the task's retry policy.

        If that depends on time, it is answered for a failure at this moment. If the policy decides by the exception, or `throws`
        names it, an earlier attempt can be the last one as well: false does not promise a retry. A `RetryLater` with
        `count=False` is followed by another run even so.
        """
        return self.registered.policy.is_last(RunInfo(self.attempt, self.first_run, time.time()))

    @property
    def cancelled(self) -> bool:
        """
        Whether the message was cancelled meanwhile; it becomes true within a second.

        A task that can stop early checks it from time to time, then returns or raises `TaskCancelled`.
        """
        asks = self._is_cancelled
        return asks is not None and asks(self.delivery)

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """
        Report how far the task has come, for `sent.status()`: how much is done, of how much, and a note for people.

        Call it as often as you like: at most two reports a second are stored, and the last one with the result. It never waits
        for the store. Without a store, or with `result=False`, it does nothing.

        Raises:
            InvalidArguments: `done` or `total` is not a finite number, or `note` is not text.

        Example:
            current().progress(done=n, total=len(rows), note="importing")
        """
        data = encode_progress(progress_of(done, total, note))
        if self.on_progress is not None and self.registered.stores_result:
            self.on_progress(self, data)

    @property
    def headers(self) -> Headers:
        """The headers that the sender gave, as a copy."""
        return user_headers(self.delivery.properties.headers)

    @property
    def schedule(self) -> str | None:
        """The name of the schedule that sent the message, None if none did."""
        name = (self.delivery.properties.headers or {}).get(SCHEDULE)
        return name if isinstance(name, str) else None

    @property
    def nominal(self) -> datetime | None:
        """When the message was due by its schedule, in UTC, None if no schedule sent it; it may have been sent later."""
        moment = time_of((self.delivery.properties.headers or {}).get(NOMINAL))
        return None if moment is None else EPOCH + min(max(moment, EARLIEST), LATEST) * MILLISECOND

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise unknown_attribute("The current run", name, RUN_ATTRIBUTES)

    def __repr__(self) -> str:
        return f"<run of {self.task}, id {self.id}, attempt {self.attempt}, queue {self.queue}>"


def current() -> Run:
    """
    Return the run that this code is part of: its `id`, `attempt`, `queue`, `headers`, `task` and `time_left`.

    `last_attempt` is whether its failure is not retried any more, `cancelled` whether it is to stop early; `progress(done, total)` reports how far it has come. If a schedule sent its message, it also has the name of the `schedule`, and the
    time that it was due, `nominal`.

    Raises:
        NoCurrentTask: this code does not run inside a task.
    """
    run = task_context.get()
    if not isinstance(run, Run):
        raise NoCurrentTask("current() was called outside a task: this code does not run inside a task of a worker.")
    return run
