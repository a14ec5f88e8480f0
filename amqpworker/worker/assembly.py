"""
Builds the parts of a worker process from an app and its options.

Decides which part knows which, and which services the process has. Nothing of it runs yet; only the result store is checked,
and the app's own code makes its lifespan.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from amqpworker.app import App
from amqpworker.broker.address import addresses, places
from amqpworker.broker.consumer import Consumer
from amqpworker.broker.consumer_channel import Subscription
from amqpworker.broker.publisher import Publisher
from amqpworker.errors import ConfigError
from amqpworker.ipc.pipes import Report, Reporter
from amqpworker.ipc.recorder import CONSUMER, EVENT_LOOP, PUBLISHER, Recorder
from amqpworker.log.logger import get_logger
from amqpworker.results.store import SQLITE_EXAMPLE, ResultStore
from amqpworker.settings import mistyped
from amqpworker.worker.app_code import AppCode, ChildrenOfTasks
from amqpworker.worker.cancelled_runs import CancelledRuns
from amqpworker.worker.cancels import Cancels
from amqpworker.worker.consumer_watch import ConsumerWatch
from amqpworker.worker.counters import OutcomeCounters
from amqpworker.worker.executor import TaskExecutor
from amqpworker.worker.hook_calls import HookTable
from amqpworker.worker.hook_threads import HookThreads
from amqpworker.worker.isolation.isolated_process import IsolatedProcess
from amqpworker.worker.isolation.isolation import Isolation
from amqpworker.worker.lifespan import Lifespan
from amqpworker.worker.limits.limits import Limits
from amqpworker.worker.main_thread import WorkerProcess
from amqpworker.worker.middleware import MiddlewareStack
from amqpworker.worker.options import AUTO, WorkerOptions
from amqpworker.worker.pauses import Pauses
from amqpworker.worker.pipeline import Pipeline
from amqpworker.worker.prefetch_tuner import PrefetchTuner
from amqpworker.worker.queue_sharing import Sharing, bits_of
from amqpworker.worker.receiver import DeliveryReceiver
from amqpworker.worker.result_storer import ResultStorer
from amqpworker.worker.settle import Settler
from amqpworker.worker.signals import OwnSignals
from amqpworker.worker.stop_request import StopRequest
from amqpworker.worker.stored_checks import StoredChecks
from amqpworker.worker.streams import Streams
from amqpworker.worker.subscriptions import queue_assignments, warn_of_long_tasks
from amqpworker.worker.task_processes import TaskProcesses
from amqpworker.worker.threads import Concurrency, RunnerThreads
from amqpworker.worker.unknown_task_counts import UnknownTasksReport

log = get_logger(__name__)


def current_folder() -> str | None:
    """Return the current folder, None if it was deleted."""
    try:
        return os.getcwd()
    except OSError:
        return None


@dataclass(frozen=True, slots=True)
class ProcessSetup:
    """
    What a worker process has before any code of the app runs; by default, that of a worker in a thread of another program.

    A task may change the folder and the signal handlers of its whole process: here they are as they were.
    """

    recorder: Recorder | None = None
    reporter: Reporter = field(default_factory=lambda: Reporter(None))
    signals: OwnSignals = field(default_factory=OwnSignals)
    folder: str | None = field(default_factory=current_folder)
    children: TaskProcesses = field(default_factory=lambda: TaskProcesses(ours=False))


def assemble(app: App, options: WorkerOptions, setup: ProcessSetup | None = None) -> WorkerProcess:
    """Build the worker process of an app; raises ConfigError if the app or the options do not allow that."""
    setup = ProcessSetup() if setup is None else setup
    reporter = setup.reporter
    recorder = Recorder(options.slots) if setup.recorder is None else setup.recorder
    stop_request = StopRequest()

    def wake() -> None:
        consumer.keeper.wake()

    # The path of a delivery, built from its end: each part needs the one after it.
    app.producer.owner = options.app
    store, counters, cancels = _checked_store(app), OutcomeCounters(), Cancels()
    settler = _settler(app, options, counters, wake, lambda is_down: consumer.stop_all(is_down))  # noqa: PLW0108
    limits = Limits(lambda _: stop_request.wake(), is_cancelled=cancels.is_cancelled)
    isolation = _isolation(app, options, setup.folder)
    middleware = MiddlewareStack.of(app.middleware, lambda *given: runners.event_loop.run_coroutine(*given))  # noqa: PLW0108
    subscriptions = _subscriptions(app, options)
    pauses = Pauses(app.tasks, subscriptions, lambda paused: consumer.pause(paused), reporter)  # noqa: PLW0108
    executor = TaskExecutor(app.tasks, store is not None, limits, middleware, gates=[cancels.gate, pauses.gate])
    pipeline = Pipeline(executor, settler, isolation, None if store is None else StoredChecks(store))
    runners: RunnerThreads = RunnerThreads(pipeline, _concurrency(app, options), recorder)
    receiver = DeliveryReceiver(runners, settler, app.settings.ack_timeout, _ask(reporter), wake)
    consumer = _consumer(app, options, subscriptions, receiver)
    _record_beats(recorder, consumer, app.producer.publisher, runners)

    # The services, and what they need.
    app.users.worker_started()
    lifespan = _lifespan(app, runners, stop_request)
    streams = _streams(app, options, pauses, CancelledRuns(cancels, runners, isolation), consumer)
    watch = _watch(app, consumer, reporter, streams, settler)
    sharing = _sharing(app, recorder, runners, consumer)
    app_code, children = AppCode(lifespan, runners), ChildrenOfTasks(setup.children, runners, reporter.has_parent)
    hooks, unknown_tasks = _hooks(app, settler, runners), UnknownTasksReport(settler.unknown_tasks, reporter)
    tuner = _prefetch_tuner(app, options, runners, consumer, stop_request, settler)
    _warn(app)
    return WorkerProcess(
        app=app,
        name=options.app,
        drain_timeout=app.settings.drain_timeout if options.drain_timeout is None else options.drain_timeout,
        recorder=recorder,
        reporter=reporter,
        signals=setup.signals,
        stop_requested=stop_request,
        publisher=app.producer.publisher,
        consumer=consumer,
        receiver=receiver,
        settler=settler,
        runners=runners,
        limits=limits,
        lifespan=lifespan,
        isolation=isolation,
        watch=watch,
        sharing=sharing,
        counters=counters,
        hooks=hooks,
        # A new one is added here. They are stopped in reverse order.
        services=(children, app_code, hooks, isolation, pauses, watch, sharing, tuner, unknown_tasks, streams),
    )


def _streams(
    app: App, options: WorkerOptions, pauses: Pauses, cancelled_runs: CancelledRuns, consumer: Consumer
) -> Streams:
    # A new stream is added here.
    followed = [pauses.stream(app.plan), cancelled_runs.stream(app.plan)]
    return Streams(app, options.app, followed, pauses.on_ready, lambda: consumer.connected)


def _record_beats(recorder: Recorder, consumer: Consumer, publisher: Publisher, runners: RunnerThreads) -> None:
    consumer.keeper.beat = lambda: recorder.beat(CONSUMER)
    publisher.keeper.beat = lambda: recorder.beat(PUBLISHER)
    runners.event_loop.beat = lambda: recorder.beat(EVENT_LOOP)


def _watch(app: App, consumer: Consumer, reporter: Reporter, streams: Streams, settler: Settler) -> ConsumerWatch:
    where = places(addresses(app.url))
    return ConsumerWatch(consumer, where, reporter, lambda: streams.problem, lambda: settler.problem)


def _settler(
    app: App,
    options: WorkerOptions,
    counters: OutcomeCounters,
    wake: Callable[[], None],
    on_store_down: Callable[[bool], None],
) -> Settler:
    store = app.store()
    storer = None if store is None else ResultStorer(store, on_down=on_store_down)
    settings = app.settings.model_copy(update={"log_tasks": options.log_tasks or app.settings.log_tasks})
    settler = Settler(app.producer.publisher, storer, app.plan, settings, wake)
    # A new listener is added here, or as in `_hooks`.
    settler.listeners.add(counters.on_settled)
    return settler


def _consumer(
    app: App, options: WorkerOptions, subscriptions: Sequence[Subscription], receiver: DeliveryReceiver
) -> Consumer:
    """Return the consumer: it subscribes once it is known what is paused."""
    consumer = Consumer(addresses(app.url), app.settings, subscriptions, receiver, paused=None)
    consumer.keeper.owner = options.app
    return consumer


def _lifespan(app: App, runners: RunnerThreads, stop_request: StopRequest) -> Lifespan:
    context = None if app.lifespan is None else app.lifespan()
    return Lifespan(context, runners.event_loop.run_coroutine, stop_request.wake)


def _sharing(app: App, recorder: Recorder, runners: RunnerThreads, consumer: Consumer) -> Sharing:
    bits = bits_of(addresses(app.url), {one.work_queue for one in consumer.subscriptions})
    return Sharing(recorder, bits, runners.has_room, consumer.subscribed, consumer.leave_to_others)


def _hooks(app: App, settler: Settler, runners: RunnerThreads) -> HookThreads:
    hooks = HookThreads(HookTable(app.hooks, app.tasks), runners.event_loop.run_coroutine)
    if hooks.is_used:
        settler.listeners.add(hooks.on_settled)
    return hooks


def _isolation(app: App, options: WorkerOptions, folder: str | None) -> Isolation:
    return Isolation(
        lambda: IsolatedProcess(options, folder),
        app.settings.max_crashes,
        options.start_timeout,
        any(task.isolated for task in app.tasks.values()),
    )


def _concurrency(app: App, options: WorkerOptions) -> Concurrency:
    bounded = frozenset(one.queue for one in queue_assignments(app, options) if app.plan.due_queue(one.queue))
    return Concurrency(options.shared_threads, options.async_tasks, options.own_threads, options.suspects, bounded)


def _checked_store(app: App) -> ResultStore | None:
    store = app.store()
    if store is None and (deduped := [task.name for task in app.tasks.values() if task.dedupe]):
        raise ConfigError(
            f"Task {deduped[0]!r} has dedupe=True, which asks the result store: give the app one, such as "
            f"App(results={SQLITE_EXAMPLE!r})."
        )
    if store is not None and (trouble := store.check_writable()) is not None:
        log.warning("results_unavailable", reason=trouble, effect="the first result waits for it")
    return store


def _ask(reporter: Reporter) -> Callable[[tuple[str, ...]], bool] | None:
    return (lambda keys: reporter.send(Report("suspect_query", keys=keys))) if reporter.has_parent else None


def _subscriptions(app: App, options: WorkerOptions) -> list[Subscription]:
    served = queue_assignments(app, options)
    for one in served:
        if one.idles:
            log.warning("prefetch_below_threads", queue=one.queue, prefetch=one.prefetch, threads=one.threads)
    found = []
    for one in served:
        required, due = app.plan.worker_requirements(one.queue), app.plan.due_queue(one.queue)
        if due is not None:
            found.append(Subscription(due, one.first_prefetch, required, beside=one.queue))
        found.append(Subscription(one.queue, one.first_prefetch, required))
    return found


def _prefetch_tuner(
    app: App,
    options: WorkerOptions,
    runners: RunnerThreads,
    consumer: Consumer,
    stop_request: StopRequest,
    settler: Settler,
) -> PrefetchTuner:
    places_of = {one.queue: one.places for one in queue_assignments(app, options) if one.prefetch == AUTO}
    tuner = PrefetchTuner(
        places_of,
        runners.running_now,
        runners.is_coroutine,
        lambda: runners.permits.waiting + settler.copies.overdue(time.monotonic()),
        consumer.set_prefetch,
        stop_request.wake,
    )
    if places_of:
        settler.listeners.add(tuner.on_settled)
    return tuner


def _warn(app: App) -> None:
    """Log what the app's tasks and the environment have that is most likely a mistake."""
    warn_of_long_tasks(app)
    for name, meant in mistyped(os.environ).items():
        log.warning("unknown_variable", name=name, meant=meant, effect="it is not read")
