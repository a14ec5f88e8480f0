"""
What the main thread of a worker process does: it starts the parts, watches them, and ends them.

Decides the order of starting and of stopping: stop consuming, requeue what has not started, let running tasks end and settle
them, stop the services from the last to the first, close the connections. Signal handlers only note the signal; the main thread
acts.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType

from amqpworker.app import App
from amqpworker.broker.consumer import Consumer
from amqpworker.broker.publisher import Publisher
from amqpworker.errors import AmqpWorkerError
from amqpworker.ipc.exit_status import ABANDONED, FAILED, MISCONFIGURED, OVERDUE, STOPPED
from amqpworker.ipc.pipes import Report, Reporter
from amqpworker.ipc.recorder import MAIN, Gauges, Recorder
from amqpworker.log.logger import get_logger
from amqpworker.log.redaction import redact_text
from amqpworker.model.outcome import Dead, Outcome
from amqpworker.worker import outcomes
from amqpworker.worker.consumer_watch import ConsumerWatch
from amqpworker.worker.context import Run
from amqpworker.worker.counters import OutcomeCounters
from amqpworker.worker.hook_threads import HookThreads
from amqpworker.worker.isolation.isolation import SHUTDOWN_GRACE, Isolation
from amqpworker.worker.lifespan import Lifespan
from amqpworker.worker.limits.limits import Limits
from amqpworker.worker.queue_sharing import Sharing
from amqpworker.worker.receiver import DeliveryReceiver
from amqpworker.worker.service import Service
from amqpworker.worker.settle import Settler
from amqpworker.worker.signals import OwnSignals
from amqpworker.worker.stacks import stack_of
from amqpworker.worker.stop_request import StopRequest
from amqpworker.worker.threads import RunnerThreads

# Its lines are about the process, and have the name of its program.
log = get_logger("amqpworker.worker.process")

DRAIN_CHECK = 0.02
FIRST_CHECK = 0.05
CHECK = 0.25
CLOSE_TIMEOUT = 5.0
LAST_COPY_TIMEOUT = 10.0
MAX_CLOCK_DIFFERENCE = 5.0
# For hooks of tasks beyond their hard limit that run again: the process must have ended by then.
LAST_HOOKS = 2.0


def misconfigured(error: AmqpWorkerError, reporter: Reporter) -> int:
    """Report why this process will never run: to the parent if there is one, else in the log."""
    if not reporter.send(Report("misconfigured", reason=redact_text(str(error)))):
        log.error("worker_misconfigured", reason=str(error))
    return MISCONFIGURED


@dataclass(eq=False)
class WorkerProcess:
    """The parts of a worker process, as `assembly` has put them together."""

    app: App
    name: str
    drain_timeout: float
    recorder: Recorder
    reporter: Reporter
    signals: OwnSignals
    stop_requested: StopRequest
    publisher: Publisher
    consumer: Consumer
    receiver: DeliveryReceiver
    settler: Settler
    runners: RunnerThreads
    limits: Limits
    lifespan: Lifespan
    isolation: Isolation
    watch: ConsumerWatch
    sharing: Sharing
    counters: OutcomeCounters
    hooks: HookThreads
    services: Sequence[Service]
    stop_now: bool = False
    """Whether a second Ctrl-C has ended the wait for running tasks."""

    # ---- from other threads and signal handlers ---------------------------------------------------------------------

    def on_signal(self, number: int, _frame: FrameType | None) -> None:
        """Note a signal."""
        if self.stop_requested.is_set() and number == signal.SIGINT:
            self.stop_now = True
        self.stop_requested.set()

    def on_parent_gone(self) -> None:
        """Stop as after a SIGTERM: the supervisor, which would send it, has ended."""
        if not self.stop_requested.is_set():
            log.warning("supervisor_lost", effect="it drains")
            self.stop_requested.set()

    def on_end_overdue(self) -> None:
        """
        Treat overdue tasks as those beyond their hard limit, at the request of the supervisor.

        Its time may be wrong, since the system clock may have been set: so each limit is checked again by the monotonic clock.
        """
        self.limits.report_overdue(OVERDUE - MAX_CLOCK_DIFFERENCE)

    # ---- in the main thread -----------------------------------------------------------------------------------------

    def run(self) -> int:
        """Consume until a signal; return the exit code."""
        try:
            return self._run()
        finally:
            self.app.users.worker_stopped()

    def _run(self) -> int:
        try:
            self.lifespan.enter()
        except (Exception, SystemExit) as error:
            log.error("lifespan_startup_failed", app=self.name, exc_info=error)
            return FAILED
        self.signals.check("the app's lifespan")
        self.reporter.send_reliably(Report("ready", self.drain_timeout))
        self.settler.start()
        for service in self.services:
            service.start()
        # It subscribes once the streams are read.
        self.consumer.keeper.start()
        if (problem := self._wait_for_consumer()) is not None:
            self.consumer.keeper.stop(CLOSE_TIMEOUT)
            self.lifespan.leave(SHUTDOWN_GRACE)
            return misconfigured(problem, self.reporter)
        # Not before: what is wrong with the broker is logged once, by the consumer.
        if not self.stop_requested.is_set():
            self.publisher.start()
        while not self.stop_requested.is_set():
            self._record()
            for service in self.services:
                service.beat(time.monotonic())
            if self.limits.overdue:
                return self._stop_after_hard_limit()
            if self.lifespan.has_ended:
                return self._stop_after_lifespan_failure()
            if self.consumer.broken or self.publisher.broken:
                lost = self.consumer.problem
                log.error("worker_broken", reason=lost and lost.text, effect="it ends, and is replaced")
                return FAILED
            # While messages are left to other processes, a thread that is idle again is not to wait for them.
            self.stop_requested.wait(FIRST_CHECK if self.sharing.leaves_queues else CHECK)
        log.info("worker_draining", running=len(self.runners.running), timeout=self.drain_timeout)
        return self._shutdown()

    def _wait_for_consumer(self) -> AmqpWorkerError | None:
        """Wait for the first consumer; return why there will never be one if that is known."""
        while not (self.stop_requested.wait(FIRST_CHECK) or self.lifespan.has_ended or self.consumer.broken):
            self._record()
            if self.consumer.ever_consumed:
                self._record()
                self.reporter.send_reliably(Report("consuming"))
                return None
            if (problem := self.watch.permanent_failure()) is not None:
                return problem
            self.watch.beat(time.monotonic())
        return None

    def _stop_after_hard_limit(self) -> int:
        """End this process, since nothing else ends a task beyond its hard limit."""
        run = self.limits.overdue[0].run
        assert run is not None
        reason = f"task {run.task!r} has run for longer than {run.registered.time_limit.longest}"
        log.error("worker_exiting", reason=reason, id=run.id, effect="it drains, and is replaced")
        self.reporter.send_reliably(Report("exiting", reason=reason))
        return self._shutdown()

    def _stop_after_lifespan_failure(self) -> int:
        """End this process, since its tasks have lost what the app's lifespan provides."""
        log.error("lifespan_lost", effect="it drains, and is replaced")
        self.reporter.send_reliably(Report("exiting", reason="the app's lifespan has ended by itself"))
        self._shutdown()
        return FAILED

    def _shutdown(self) -> int:
        """
        End everything: requeue what has not started, and let running tasks end within their limits or the drain timeout.

        The messages of tasks beyond their hard limit that run again are settled last, and then this process ends at once: so they do not
        run elsewhere while they still run here. The exit code shows whether a running task was abandoned.
        """
        until = time.monotonic() + self.drain_timeout
        self._stop_consuming(until)
        finished = self._wait_until(
            lambda: len(self.runners.running) <= self.limits.count_overdue() and self.settler.is_idle, until
        )
        if not finished:
            log.warning("tasks_abandoned", running=[one.properties.type for one in list(self.runners.running.values())])
        last = self._settle_first(self._claim_overdue(), until)
        for service in reversed(self.services):
            service.stop(0.0 if self.stop_now else max(SHUTDOWN_GRACE, until - time.monotonic()))
        for run, outcome in last:
            self.runners.settle(run.delivery, outcome, run)
        if last:
            self._wait_until(lambda: self.settler.is_idle, time.monotonic() + LAST_COPY_TIMEOUT)
            self._wait_until(self.hooks.are_done, time.monotonic() + LAST_HOOKS)
        self.consumer.keeper.wake()
        self.app.producer.close(CLOSE_TIMEOUT if not self.stop_now else 0.0)
        self.consumer.keeper.stop(CLOSE_TIMEOUT)
        self.settler.stop()
        self.hooks.end()
        log.info("worker_stopped", abandoned=not finished)
        return STOPPED if finished else ABANDONED

    def _stop_consuming(self, until: float) -> None:
        drained = threading.Event()
        self.settler.drain()
        for service in self.services:
            service.drain()
        self.receiver.drain()
        self.consumer.drain(drained.set)
        self._wait_until(drained.is_set, until)

    def _claim_overdue(self) -> list[tuple[Run, Outcome]]:
        """Claim the runs beyond their hard limit, and return their outcomes; called before anything of them is cancelled."""
        claimed = []
        for deadline in list(self.limits.overdue):
            run = deadline.run
            if run is not None and self.limits.claim(deadline):
                late = outcomes.from_hard_limit(run, stack_of(deadline.thread), self._time_to_end(run))
                claimed.append((run, late))
        return claimed

    def _time_to_end(self, run: Run) -> float:
        """Return how long this process may still exist, in seconds, once the message of a run is settled."""
        listens = self.hooks.has_hooks(run.registered, "on_retry")
        return outcomes.HARD_LIMIT_DELAY + (LAST_HOOKS if listens else 0.0)

    def _settle_first(self, overdue: list[tuple[Run, Outcome]], until: float) -> list[tuple[Run, Outcome]]:
        """
        Wait for the hooks of what is settled, and return the runs that are settled last.

        Dead letters are settled here if there are hooks, which may need the app's lifespan: they do not run elsewhere.
        """
        if not self.hooks.is_used:
            return overdue
        dead = [each for each in overdue if isinstance(each[1], Dead)]
        for run, outcome in dead:
            self.runners.settle(run.delivery, outcome, run)
        least = time.monotonic() + (SHUTDOWN_GRACE if dead else 0.0)
        self._wait_until(lambda: self.settler.is_idle and self.hooks.are_done(), max(until, least))
        return [each for each in overdue if each not in dead]

    def _record(self) -> None:
        """Record for the supervisor that this thread is alive, and the counts so far."""
        self.recorder.beat(MAIN)
        unconfirmed = self.settler.copies.overdue(time.monotonic())
        gauges = Gauges(self.isolation.in_use, self.runners.permits.waiting, unconfirmed)
        self.recorder.record(self.counters.counts(), self.consumer.consuming, gauges)
        self.reporter.flush_pending()

    def _wait_until(self, is_true: Callable[[], bool], until: float) -> bool:
        pause = threading.Event()
        while not is_true():
            self._record()
            if self.stop_now or time.monotonic() >= until:
                return False
            pause.wait(DRAIN_CHECK)
        return True
