"""
What happens to tasks that run when their messages are cancelled.

Decides who is informed: an isolated process in any case, since it cannot see what this process knows; with `force` the thread,
the coroutine or the isolated process that runs the task is ended. `limits` decides how a thread is interrupted.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from amqpworker.broker.stream_reader import FollowedStream
from amqpworker.log.logger import get_logger
from amqpworker.model.cancel import Cancel, UnusableCancel, decode_cancel
from amqpworker.model.message import Delivery
from amqpworker.routing.queues import Plan
from amqpworker.worker.cancels import Cancels
from amqpworker.worker.isolation.isolation import Isolation
from amqpworker.worker.threads import RunnerThreads

log = get_logger(__name__)


class CancelledRuns:
    """Takes the entries of the stream of cancels, in one thread."""

    def __init__(
        self, cancels: Cancels, runners: RunnerThreads, isolation: Isolation, now: Callable[[], float] = time.time
    ) -> None:
        self._cancels = cancels
        self._runners = runners
        self._isolation = isolation
        self._now = now

    def stream(self, plan: Plan) -> FollowedStream:
        """Return the stream to follow."""
        return FollowedStream(plan.names.cancelled, plan.if_declared(plan.cancelled), "first", self.on_entry)

    def on_entry(self, delivery: Delivery) -> None:
        """Note a cancel, and act on the runs of its message; one that cannot be read is logged and ignored."""
        try:
            cancel = decode_cancel(delivery.body)
        except UnusableCancel as error:
            log.warning("cancel_not_readable", reason=str(error), effect="it is ignored")
            return
        self._cancels.add(cancel)
        if self._runners.running and (cancel.force or self._isolation.in_use):
            self._on_cancel(cancel)

    def _on_cancel(self, cancel: Cancel) -> None:
        now = int(self._now() * 1000)
        for number, delivery in list(self._runners.running.items()):
            if not cancel.covers(delivery, now) or self._isolation.cancel(delivery, cancel.force):
                continue
            if cancel.force:
                log.info("task_interrupted", task=delivery.properties.type, id=cancel.id, queue=delivery.queue)
                self._runners.interrupt(number, delivery)
