"""
The line that a message leaves in the log as it is settled.

Decides its event, its level and its fields (docs/operations.md). `settle` decides what becomes of the message.
"""

from __future__ import annotations

from logging import INFO

from amqpworker.hooks import Settled
from amqpworker.log.logger import get_logger
from amqpworker.model.outcome import AlreadyDone, Dead, Deferred, Discarded, Postpone, Retry, Snooze
from amqpworker.routing.envelope import RunIdentity

log = get_logger(__name__)

MAX_LOGGED = 200
"""Characters of an error: its whole text is in the result or in the dead letter."""


def done(settled: Settled, level: int) -> None:
    """Log that a task has ended as it should, at info or debug."""
    write = log.info if level == INFO else log.debug
    write("task_done", task=settled.task, id=settled.id, seconds=settled.seconds, outcome="done")


def refused(settled: Settled, reason: str) -> None:
    """Log that those who want the result of a task cannot have it."""
    log.error("result_refused", id=settled.id, task=settled.task, queue=settled.queue, reason=reason[:MAX_LOGGED])


def retried(settled: Settled, outcome: Retry | Snooze, identity: RunIdentity) -> None:
    """Log that a task has failed, or asked for it, and runs again."""
    failure = outcome.failure
    log.info(
        "task_retried",
        task=settled.task,
        id=identity.task_id,
        attempt=identity.attempt,
        seconds=settled.seconds,
        outcome="retried",
        delay=round(outcome.delay, 3),
        to_queue=outcome.queue,
        error=failure.error_type,
        error_text=failure.text[:MAX_LOGGED],
    )


def postponed(settled: Settled, outcome: Postpone, identity: RunIdentity) -> None:
    """Log that a task did not start yet, since it was delivered too early or cannot run now."""
    log.info(
        "task_postponed",
        task=settled.task,
        id=identity.task_id,
        attempt=identity.attempt,
        outcome="postponed",
        delay=round(outcome.delay, 3),
        reason=outcome.reason,
    )


def deferred(settled: Settled, outcome: Deferred) -> None:
    """Log that a message waits for a worker that can run it, or for its task to be resumed."""
    log.debug("task_deferred", task=settled.task, id=settled.id, delay=outcome.delay, reason=outcome.reason)


def cancelled(settled: Settled) -> None:
    """Log that a task was cancelled, before its start or while it ran."""
    log.info("task_cancelled", task=settled.task, id=settled.id, queue=settled.queue, seconds=settled.seconds)


def without_run(settled: Settled, outcome: AlreadyDone | Discarded) -> None:
    """Log that a message is acknowledged although its task did not run."""
    if isinstance(outcome, AlreadyDone):
        log.info("task_already_done", id=settled.id, task=settled.task, queue=settled.queue)
    else:
        log.info("call_discarded", id=settled.id, queue=settled.queue, reason=outcome.reason)


def republished(settled: Settled) -> None:
    """Log that a copy takes the place of a message as it is."""
    delivery = settled.delivery
    log.warning("delivery_republished", id=delivery.properties.message_id, queue=delivery.queue)


def dead(settled: Settled, outcome: Dead, task_id: str) -> None:
    """Log that a message becomes a dead letter: as a warning, unless its task expects the exception."""
    failure = outcome.failure
    fields = {
        "id": task_id,
        "task": settled.task,
        "queue": settled.queue,
        "seconds": settled.seconds,
        "outcome": "dead",
        "reason": outcome.reason,
        "error": failure.error_type,
        "error_text": failure.text[:MAX_LOGGED],
    }
    if outcome.is_expected:
        log.info("task_dead", **fields)
    else:
        log.warning("task_dead", **fields)
