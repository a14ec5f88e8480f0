"""
What a worker process waits for while it does not consume: reported to its supervisor, and logged until it first consumes.

Decides the text: which broker, or which queue, and why.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from amqpworker.broker.consumer import Consumer
from amqpworker.errors import AccessRefused, AmqpWorkerError, ConfigError
from amqpworker.ipc.pipes import Report, Reporter
from amqpworker.log.logger import get_logger
from amqpworker.log.redaction import redact_text
from amqpworker.worker.service import Service

log = get_logger(__name__)

LOG_EVERY = 5.0


class ConsumerWatch(Service):
    """
    Watches a consumer of the broker at `places`.

    `problem` returns what else prevents it from consuming at all, `store_problem` why nothing is consumed at the moment.
    """

    def __init__(
        self,
        consumer: Consumer,
        places: str,
        reporter: Reporter,
        problem: Callable[[], AmqpWorkerError | None] = lambda: None,
        store_problem: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._consumer = consumer
        self._problem = problem
        self._store_problem = store_problem
        self._broker = f"the broker at {places}"
        self._reporter = reporter
        self._reported = ""
        self._log_at = time.monotonic() + LOG_EVERY

    def beat(self, now: float) -> None:
        """Report what is waited for when it changes, and log it every few seconds as long as nothing was ever consumed."""
        what, reason = self._wait() or ("", "")
        text = redact_text(f"{what}: {reason}") if what else ""
        if text != self._reported and self._reporter.send(Report("waiting", reason=text)):
            self._reported = text
        if what and now >= self._log_at and not self._consumer.ever_consumed:
            self._log_at = now + LOG_EVERY
            log.warning("worker_waiting", waits_for=what, reason=reason)

    def _wait(self) -> tuple[str, str] | None:
        """Return what the process waits for, and why it is not available."""
        if (text := self._store_problem()) is not None:
            return "the result store", text
        consumer = self._consumer
        if consumer.consuming:
            return None
        if (problem := consumer.problem) is not None:
            return self._broker, problem.text
        for queue, error in list(consumer.failures.items()):
            return f"queue {queue!r}", str(error)
        reason = "it has not confirmed all consumers yet" if consumer.connected else "it is still connecting"
        return self._broker, reason

    def permanent_failure(self) -> AmqpWorkerError | None:
        """Return the problem that prevents consuming from every queue and that waiting does not fix, if there is one."""
        if (other := self._problem()) is not None:
            return other
        problem = self._consumer.problem
        if problem is not None and problem.kind != "unreachable":
            return problem.error()
        # One queue that can be consumed is worth it, whatever the others.
        failures = list(self._consumer.failures.values())
        found = [failure for failure in failures if isinstance(failure, ConfigError | AccessRefused)]
        return found[0] if len(found) == len(self._consumer.subscriptions) else None
