"""
One worker process: it consumes from an app's queues and runs its tasks until a signal ends it.

Decides the order of starting and of stopping: stop consuming, requeue what has not started, finish what runs,
settle, exit. Signal handlers only note the signal; the main thread acts.
"""

from __future__ import annotations

import atexit
import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType
from typing import NoReturn

from amqpworker.app import App
from amqpworker.broker.address import addresses, places
from amqpworker.broker.consumer import Consumer
from amqpworker.broker.consumer_channel import Subscription
from amqpworker.errors import AmqpWorkerError, ConfigError
from amqpworker.ipc.exit_status import ABANDONED, FAILED, MISCONFIGURED, OVERDUE, STOPPED
from amqpworker.ipc.interpreter import version_mismatch, without_version
from amqpworker.ipc.pipes import Report, Reporter
from amqpworker.ipc.recorder import CONSUMER, EVENT_LOOP, MAIN, PUBLISHER, Gauges, Recorder, map_memory
from amqpworker.ipc.stray_signals import DUMP_SIGNAL, STRAY, ignore_stray
from amqpworker.log.format import configure, log_uncaught
from amqpworker.log.logger import flush, get_logger
from amqpworker.log.redaction import redact_text
from amqpworker.model.outcome import Outcome
from amqpworker.settings import mistyped
from amqpworker.worker import outcomes
from amqpworker.worker.app_loader import import_error, load_app, may_pass
from amqpworker.worker.child_processes import ChildProcesses
from amqpworker.worker.context import Run
from amqpworker.worker.counters import OutcomeCounters
from amqpworker.worker.executor import Pipeline, TaskExecutor
from amqpworker.worker.forked_children import default_signals_in_forks
from amqpworker.worker.isolation.child import IsolatedProcess
from amqpworker.worker.isolation.pool import SHUTDOWN_GRACE, Isolation
from amqpworker.worker.lifespan import Lifespan
from amqpworker.worker.limits.deadlines import Limits, RunDeadline
from amqpworker.worker.middleware import MiddlewareStack
from amqpworker.worker.options import WorkerOptions
from amqpworker.worker.origin import Origin
from amqpworker.worker.parent import ParentPipe
from amqpworker.worker.queue_sharing import Sharing, bits_of
from amqpworker.worker.receiver import DeliveryReceiver
from amqpworker.worker.settle import Settler
from amqpworker.worker.stacks import stack_of
from amqpworker.worker.startup import Waiting, permanent_failure
from amqpworker.worker.stdout import print_by_line
from amqpworker.worker.stop_request import StopRequest
from amqpworker.worker.subscriptions import queue_assignments, warn_of_long_tasks
from amqpworker.worker.thread_room import room_permitting
from amqpworker.worker.threads import Concurrency, RunnerThreads

# Not `__name__`, which is `__main__` in a process that was started.
log = get_logger("amqpworker.worker.process")

DRAIN_CHECK = 0.02
FIRST_CHECK = 0.05
CHECK = 0.25
CLOSE_TIMEOUT = 5.0
LAST_COPY_TIMEOUT = 10.0
CLOCKS_APART = 5.0


class WorkerProcess:
    """The parts of a worker process, wired together."""

    def __init__(
        self,
        app: App,
        options: WorkerOptions,
        recorder: Recorder | None = None,
        reporter: Reporter | None = None,
        origin: Origin | None = None,
    ) -> None:
        self.app = app
        self.origin = origin = Origin() if origin is None else origin
        self.recorder = recorder = Recorder(options.slots) if recorder is None else recorder
        self.options = options
        self.reporter = reporter = Reporter(None) if reporter is None else reporter
        self.drain_timeout = app.settings.drain_timeout if options.drain_timeout is None else options.drain_timeout
        app.producer.owner = options.app
        self.publisher = app.producer.publisher
        store = app.store()
        if store is not None and (trouble := store.check_writable()) is not None:
            log.warning("results_unavailable", reason=trouble, effect="the first result waits for it")
        settings = app.settings.model_copy(update={"log_tasks": options.log_tasks or app.settings.log_tasks})
        self.settler = Settler(self.publisher, store, app.plan, settings, self._wake)
        self.counters = OutcomeCounters()
        self.settler.listeners.add(self.counters.on_settled)
        # Runs over their hard limit, in the order in which they reached it.
        self.overruns: list[RunDeadline] = []
        self.limits = Limits(self._on_overrun)
        self.isolation = Isolation(
            lambda: IsolatedProcess(options, origin.folder),
            app.settings.max_crashes,
            options.start_timeout,
            any(task.isolated for task in app.tasks.values()),
        )
        concurrency = Concurrency(options.shared_threads, options.async_tasks, options.own_threads, options.suspects)
        await_ = lambda *given: self.runners.event_loop.run_coroutine(*given)  # noqa: E731, PLW0108 - `runners` are made below
        middleware = MiddlewareStack.of(app.middleware, await_)
        executor = TaskExecutor(app.tasks, store is not None, self.limits, middleware)
        pipeline = Pipeline(executor, self.settler, self.isolation)
        self.runners: RunnerThreads = RunnerThreads(pipeline, concurrency, recorder)
        ask = self._ask if reporter.has_parent else None
        self.receiver = DeliveryReceiver(self.runners, self.settler, app.settings.ack_timeout, ask, self._wake)
        self.consumer = Consumer(addresses(app.url), app.settings, self._subscriptions(), self.receiver)
        self.consumer.io.owner = options.app
        self.waiting = Waiting(self.consumer, places(addresses(app.url)), reporter)
        bits = bits_of(addresses(app.url), [one.queue for one in self.consumer.subscriptions])
        self.sharing = Sharing(recorder, bits, self.runners.has_room, self.consumer.hold)
        app.users.worker_started()
        lifespan = None if app.lifespan is None else app.lifespan()
        self.lifespan = Lifespan(lifespan, self.runners.event_loop.run_coroutine)
        warn_of_long_tasks(app)
        _warn_of_mistyped_variables()
        self.stop_requested = StopRequest()
        self.lifespan.on_ended = self.stop_requested.wake
        self.stop_now = False
        self.children = ChildProcesses(ours=False)
        self.consumer.io.beat = lambda: recorder.beat(CONSUMER)
        self.publisher.io.beat = lambda: recorder.beat(PUBLISHER)
        self.runners.event_loop.beat = lambda: recorder.beat(EVENT_LOOP)

    def _wake(self) -> None:
        self.consumer.io.wake()

    def _on_overrun(self, deadline: RunDeadline) -> None:
        self.overruns.append(deadline)
        self.stop_requested.wake()

    def on_exit_command(self) -> None:
        """Exit as after a hard limit. The supervisor goes by the system clock, which may have been set: check limits here."""
        for deadline in self.limits.overdue(OVERDUE - CLOCKS_APART):
            if deadline not in self.overruns:
                self._on_overrun(deadline)

    def _ask(self, keys: tuple[str, ...]) -> bool:
        return self.reporter.send(Report("suspect_query", keys=keys))

    def _subscriptions(self) -> list[Subscription]:
        served = queue_assignments(self.app, self.options)
        for one in served:
            if one.idles:
                log.warning("prefetch_below_threads", queue=one.queue, prefetch=one.prefetch, threads=one.threads)
        return [Subscription(one.queue, one.prefetch, self.app.plan.worker_requirements(one.queue)) for one in served]

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
            log.error("lifespan_startup_failed", app=self.options.app, exc_info=error)
            return FAILED
        self.origin.signals.check("the app's lifespan")
        self.reporter.send_reliably(Report("ready", self.drain_timeout))
        self.runners.start()
        self.consumer.io.start()
        if (problem := self._wait_for_consumer()) is not None:
            self.consumer.io.stop(CLOSE_TIMEOUT)
            self.lifespan.leave(SHUTDOWN_GRACE)
            return misconfigured(problem, self.reporter)
        # Not before: what is wrong with the broker is logged once, by the consumer.
        if not self.stop_requested.is_set():
            self.publisher.start()
        while not self.stop_requested.is_set():
            self._record()
            self.sharing.check(self.consumer.subscribed(), now := time.monotonic())
            self.waiting.report(now)
            self.isolation.tidy()
            self.children.tidy(time.monotonic())
            if self.overruns:
                return self.stop_after_hard_limit()
            if self.lifespan.has_ended:
                return self.stop_after_lifespan_failure()
            if self.consumer.broken or self.publisher.broken:
                lost = self.consumer.problem
                log.error("worker_broken", reason=lost and lost.text, effect="it ends, and is replaced")
                return FAILED
            # While messages are left to other processes, a thread that is idle again is not to wait for them.
            self.stop_requested.wait(FIRST_CHECK if self.sharing.holds else CHECK)
        return self.stop()

    def _wait_for_consumer(self) -> AmqpWorkerError | None:
        """Wait for the first consumer; return why there will never be one if that is known."""
        while not (self.stop_requested.wait(FIRST_CHECK) or self.lifespan.has_ended or self.consumer.broken):
            self._record()
            if self.consumer.ever_consumed:
                self._record()
                self.reporter.send_reliably(Report("consuming"))
                return None
            if (problem := permanent_failure(self.consumer)) is not None:
                return problem
            self.waiting.report(time.monotonic())
        return None

    def stop(self) -> int:
        """Drain; return the exit code, which shows whether a running task was abandoned."""
        log.info("worker_draining", running=len(self.runners.running), timeout=self.drain_timeout)
        return self._shutdown()

    def stop_after_hard_limit(self) -> int:
        """End this process, since nothing else ends a task beyond its hard limit; return the exit code."""
        run = self.overruns[0].run
        reason = f"task {run.task!r} has run for longer than {run.registered.time_limit.longest}"
        log.error("worker_exiting", reason=reason, id=run.id, effect="it drains, and is replaced")
        self.reporter.send_reliably(Report("exiting", reason=reason))
        return self._shutdown()

    def stop_after_lifespan_failure(self) -> int:
        """End this process, since its tasks have lost what the app's lifespan provides; return the exit code."""
        log.error("lifespan_lost", effect="it drains, and is replaced")
        self.reporter.send_reliably(Report("exiting", reason="the app's lifespan has ended by itself"))
        self._shutdown()
        return FAILED

    def _shutdown(self) -> int:
        """
        End everything: requeue what has not started, and let running tasks end within their limits or the drain timeout.

        The messages of tasks beyond their hard limit are settled last, and then this process ends at once: so they do not
        run elsewhere while they still run here.
        """
        until = time.monotonic() + self.drain_timeout
        self._stop_consuming(until)
        finished = self._wait_until(
            lambda: len(self.runners.running) <= self._count_overruns() and self.settler.is_idle, until
        )
        if not finished:
            log.warning("tasks_abandoned", running=[one.properties.type for one in list(self.runners.running.values())])
        overrun = self._claim_overruns()
        self._end_running(until)
        for run, outcome in overrun:
            self.runners.settle(run.delivery, outcome, run)
        if overrun:
            self._wait_until(lambda: self.settler.is_idle, time.monotonic() + LAST_COPY_TIMEOUT)
        self.consumer.io.wake()
        self.app.producer.close(CLOSE_TIMEOUT if not self.stop_now else 0.0)
        self.consumer.io.stop(CLOSE_TIMEOUT)
        log.info("worker_stopped", abandoned=not finished)
        return STOPPED if finished else ABANDONED

    def _claim_overruns(self) -> list[tuple[Run, Outcome]]:
        """Claim the runs beyond their hard limit, and return their outcomes; called before anything of them is cancelled."""
        return [
            (deadline.run, outcomes.from_hard_limit(deadline.run, stack_of(deadline.thread)))
            for deadline in list(self.overruns)
            if self.limits.claim(deadline)
        ]

    def _end_running(self, until: float) -> None:
        """Abandon the running tasks, and only then close what they use."""
        self.isolation.close(SHUTDOWN_GRACE if not self.stop_now else 0.0)
        self.runners.abandon()
        self.lifespan.leave(max(SHUTDOWN_GRACE, until - time.monotonic()) if not self.stop_now else SHUTDOWN_GRACE)
        self.runners.stop()
        # After a second Ctrl-C the supervisor ends them, after this process.
        if not (self.stop_now and self.reporter.has_parent):
            self.children.end(self.runners.discard_results)

    def _stop_consuming(self, until: float) -> None:
        """Stop deliveries, and have what has not started requeued."""
        drained = threading.Event()
        self.settler.draining.set()
        self.recorder.record_idle(0)
        self.receiver.drain()
        self.consumer.drain(drained.set)
        self._wait_until(drained.is_set, until)

    def _count_overruns(self) -> int:
        """Return how many runs are beyond their hard limit and have not ended by themselves."""
        return sum(self.limits.is_running(deadline) for deadline in list(self.overruns))

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

    def on_signal(self, number: int, _frame: FrameType | None) -> None:
        """Note a signal; a second Ctrl-C ends the wait for running tasks."""
        if self.stop_requested.is_set() and number == signal.SIGINT:
            self.stop_now = True
        self.stop_requested.set()

    def on_parent_gone(self) -> None:
        """Stop as after a SIGTERM: the supervisor, which would send it, has ended."""
        if not self.stop_requested.is_set():
            log.warning("supervisor_lost", effect="it drains")
            self.stop_requested.set()


def main(arguments: Sequence[str]) -> int:
    """
    Run a worker process.

    The arguments are the version of the parent, the options as JSON, and three descriptors: a pipe from the parent (if it is
    closed, the parent has ended, and the worker stops), a pipe for reports to the parent, and memory for the flight recorder.
    """
    if reason := version_mismatch(arguments):
        return misconfigured(ConfigError(reason), Reporter(int(arguments[3])))
    arguments = without_version(arguments)
    options = WorkerOptions.model_validate_json(arguments[0])
    descriptors: list[int | None] = [*map(int, arguments[1:]), None, None, None]
    parent_pipe, reports, memory = descriptors[:3]
    reporter = Reporter(reports)
    recorder = Recorder(options.slots, None if memory is None else map_memory(memory))
    # By a signal, since it works where Python itself hangs: the parent sends it before it kills.
    faulthandler.register(DUMP_SIGNAL, all_threads=True)
    ignore_stray()
    origin = Origin()
    print_by_line()
    configure(options.log_level, options.log_json)
    log_uncaught()
    children = ChildProcesses()
    # Before the app is imported, which may take forever.
    parent = ParentPipe(parent_pipe)
    try:
        worker = WorkerProcess(load_app(options.app), options, recorder, reporter, origin)
    except (Exception, SystemExit) as error:
        passes = may_pass(error)
        if isinstance(error, AmqpWorkerError) and not passes:
            return misconfigured(error, reporter)
        log.error("app_not_imported", app=options.app, exc_info=error)
        # After an error that may pass another process tries it again.
        return FAILED if passes else misconfigured(import_error(options.app, error), reporter)
    origin.signals.check("the app's import")
    origin.signals.set(worker.on_signal)
    default_signals_in_forks((signal.SIGTERM, signal.SIGINT, *STRAY))
    worker.children = children
    parent.subscribe(worker.receiver.on_suspect_answer, worker.on_exit_command, worker.on_parent_gone)
    code = worker.run()
    if not worker.stop_now:
        children.end()
    # It ends by itself: nothing that runs still is to be blamed for that.
    recorder.clear()
    return code


def _warn_of_mistyped_variables() -> None:
    """Log which variables of the environment are probably mistyped settings."""
    for name, meant in mistyped(os.environ).items():
        log.warning("unknown_variable", name=name, meant=meant, effect="it is not read")


def misconfigured(error: AmqpWorkerError, reporter: Reporter) -> int:
    """Report why this worker will never run: to the parent if there is one, else in the log."""
    if not reporter.send(Report("misconfigured", reason=redact_text(str(error)))):
        log.error("worker_misconfigured", reason=str(error))
    return MISCONFIGURED


def _leave(code: int) -> NoReturn:
    """
    End this process, without a wait for abandoned threads.

    What user code has registered for the interpreter's exit is run where nothing of it runs any more.
    """
    if code == STOPPED:
        atexit._run_exitfuncs()  # noqa: SLF001 - os._exit does not, and sys.exit would wait for any thread
    flush()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # a task may have closed it
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    _leave(room_permitting(lambda: main(sys.argv[1:])))
