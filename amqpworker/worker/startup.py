"""
What a worker process waits for while it does not consume: reported to its supervisor, and logged until it first consumes.

Decides the text: which broker, or which queue, and why.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from amqpworker.broker.consumer import Consumer
from amqpworker.errors import AccessRefused, AmqpWorkerError, ConfigError
from amqpworker.ipc.pipes import Report, Reporter
from amqpworker.log.logger import get_logger
from amqpworker.log.redaction import redact_text

# Not `__name__`: its lines are the process's.
log = get_logger("amqpworker.worker.process")

LOG_EVERY = 5.0


class Wait(NamedTuple):
    """What the process waits for, and why it is not available."""

    what: str
    reason: str


class Waiting:
    """Watches a consumer of the broker at `places`; for the main thread."""

    def __init__(self, consumer: Consumer, places: str, reporter: Reporter) -> None:
        self._consumer = consumer
        self._broker = f"the broker at {places}"
        self._reporter = reporter
        self._reported = ""
        self._log_at = time.monotonic() + LOG_EVERY

    def report(self, now: float) -> None:
        """Report what is waited for when it changes, and log it every few seconds as long as nothing was ever consumed."""
        wait = self._wait()
        text = "" if wait is None else redact_text(f"{wait.what}: {wait.reason}")
        if text != self._reported and self._reporter.send(Report("waiting", reason=text)):
            self._reported = text
        if wait is not None and now >= self._log_at and not self._consumer.ever_consumed:
            self._log_at = now + LOG_EVERY
            log.warning("worker_waiting", waits_for=wait.what, reason=wait.reason)

    def _wait(self) -> Wait | None:
        consumer = self._consumer
        if consumer.consuming:
            return None
        if (problem := consumer.problem) is not None:
            return Wait(self._broker, problem.text)
        for queue, error in list(consumer.failures.items()):
            return Wait(f"queue {queue!r}", str(error))
        reason = "it has not confirmed all consumers yet" if consumer.connected else "it is still connecting"
        return Wait(self._broker, reason)


def permanent_failure(consumer: Consumer) -> AmqpWorkerError | None:
    """Return the problem that prevents consuming from every queue and that waiting does not fix, if there is one."""
    problem = consumer.problem
    if problem is not None and problem.kind != "unreachable":
        return problem.error()
    # One queue that can be consumed is worth it, whatever the others.
    failures = list(consumer.failures.values())
    found = [failure for failure in failures if isinstance(failure, ConfigError | AccessRefused)]
    return found[0] if len(found) == len(consumer.subscriptions) else None
