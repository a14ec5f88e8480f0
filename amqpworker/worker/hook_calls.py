"""
Which hooks are called for a settled delivery, and with which arguments.

Decides both by the event of the delivery; `hook_threads` calls them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from amqpworker.hooks import Settled
from amqpworker.model.dead_letter import DeadLetter
from amqpworker.model.message import Delivery
from amqpworker.model.outcome import Dead, Done, Retry, Snooze
from amqpworker.model.retried import Retried
from amqpworker.policies.hook_functions import Hook, HookKind, Hooks
from amqpworker.routing.topology import dead_queue

if TYPE_CHECKING:
    from amqpworker.task import Task

KINDS: dict[type, HookKind] = {
    Done: "on_success",
    Retry: "on_retry",
    Snooze: "on_retry",
    Dead: "on_dead",
}


class HookTable:
    """The hooks of an app and of its tasks."""

    def __init__(self, app_hooks: Hooks, tasks: Mapping[str, Task[Any, Any]]) -> None:
        self._app_hooks = app_hooks
        self._tasks = tasks

    @property
    def is_empty(self) -> bool:
        """Whether there are none."""
        return not (self._app_hooks or any(task.hooks for task in self._tasks.values()))

    def hooks_for(self, event: Settled) -> tuple[Hook, ...]:
        """
        Return what to call for a delivery: the hooks of its task, then those of the app.

        There are none for a task that has returned a result that the store refused: its sender sees a failure.
        """
        kind = KINDS.get(type(event.outcome))
        if kind is None or (event.result_refused and kind == "on_success"):
            return ()
        return self.hooks_of(self._tasks.get(event.task or "") if event.run is None else event.run.registered, kind)

    def hooks_of(self, task: Task[Any, Any] | None, kind: HookKind) -> tuple[Hook, ...]:
        """Return the hooks of one kind for messages of a task; `None` is one that this worker does not know."""
        own = [] if task is None else task.hooks.of(kind)
        return (*own, *self._app_hooks.of(kind))


def arguments_of(event: Settled) -> tuple[object, ...]:
    """Return what the hooks of a delivery are called with; raises InvalidResult if its result does not fit the return hint."""
    run = event.run
    match event.outcome:
        case Done(value):
            assert run is not None
            if hasattr(run, "returned"):
                return run, run.returned
            # It ran in an isolated process, which has sent its result as JSON.
            return run, None if value is None else run.registered.signature.decode_result(value)
        case Retry(delay, failure) | Snooze(delay, failure):
            assert run is not None
            return (
                Retried(
                    run=run,
                    delay=delay,
                    error_type=failure.error_type,
                    error=failure.text,
                    traceback=failure.traceback,
                ),
            )
        case Dead():
            assert event.letter is not None
            letter = event.letter
            message = Delivery(0, False, letter.exchange, letter.routing_key, letter.properties, letter.body)
            message.queue = dead_queue(event.queue)
            return (DeadLetter.of(message, message.queue),)
    raise AssertionError(event)  # pragma: no cover - only for these `HookTable` has hooks
