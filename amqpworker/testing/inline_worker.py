"""
The worker of an app that runs inline: takes deliveries one at a time, by the code of a worker process.

Decides in which thread a task runs: coroutines in one event loop in a thread of its own, all others in the thread that sends;
but never where an event loop runs. Many threads may send; what one of them takes, the others wait for.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from amqpworker.log.logger import task_context
from amqpworker.model.headers import EXPIRES, time_of
from amqpworker.model.outcome import Requeue
from amqpworker.testing.inline_runs import InlineRun, InlineRuns
from amqpworker.testing.one_delivery import Parts, Workbench
from amqpworker.worker.cancels import Cancels
from amqpworker.worker.hook_calls import HookTable
from amqpworker.worker.hook_threads import HookThreads
from amqpworker.worker.lifespan import Lifespan
from amqpworker.worker.limits.limits import Limits
from amqpworker.worker.stored_checks import StoredChecks

if TYPE_CHECKING:
    from amqpworker.app import App
    from amqpworker.broker.pending_publish import PendingPublish
    from amqpworker.client.calls import Calls
    from amqpworker.model.message import Publication
    from amqpworker.results.store import ResultStore
    from amqpworker.testing.inline_broker import InlineBroker
    from amqpworker.testing.virtual_clock import VirtualClock


class LoopThread:
    """An event loop in a thread of its own, which starts with the first coroutine."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run_coroutine(self, coroutine: Coroutine[Any, Any, Any], timeout: float | None = None) -> Any:
        """Return what a coroutine returns; raises TimeoutError, after cancelling it, if that takes longer."""
        waited = coroutine if timeout is None else asyncio.wait_for(coroutine, timeout)
        return asyncio.run_coroutine_threadsafe(waited, self._started()).result()

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._run, args=(self._loop,), name="inline-loop", daemon=True)
                self._thread.start()
            return self._loop

    @staticmethod
    def _run(loop: asyncio.AbstractEventLoop) -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.get_loop().run_forever()

    @property
    def is_here(self) -> bool:
        """Whether this thread runs the loop."""
        return self._thread is threading.current_thread()

    def close(self) -> None:
        """Cancel what still runs in the loop, and end its thread."""
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10.0)


class InlineWorker:
    """Takes the messages that are ready, until there are none."""

    def __init__(
        self, app: App, store: ResultStore | None, broker: InlineBroker, clock: VirtualClock, cancels: Cancels
    ) -> None:
        self._app = app
        self._broker = broker
        self._clock = clock
        self._loop = LoopThread()
        self._stored_checks = None if store is None else StoredChecks(store, clock.now, clock.monotonic)
        self._limits = Limits(is_cancelled=cancels.is_cancelled)
        self._parts = Parts(
            store,
            app.middleware,
            clock.clock,
            gates=[cancels.gate],
            limits=self._limits,
            stored_checks=self._stored_checks,
            run_coroutine=self._loop.run_coroutine,
        )
        self._hooks = HookThreads(HookTable(app.hooks, app.tasks), self._loop.run_coroutine)
        self._lifespan: Lifespan | None = None
        self._runs = InlineRuns(broker.pop_ready)
        self._count = 0

    @property
    def is_inside_task(self) -> bool:
        """Whether this code runs inside a task, or a hook of one."""
        return task_context.get() is not None

    def run_ready(self) -> int:
        """Run what is ready, and what that sends, until nothing is; return how many deliveries were taken."""
        before = self._count
        self._outside_of_loops(self._drain)
        return self._count - before

    def run_sent(self, pending: PendingPublish) -> None:
        """Run what is ready; when this returns, the message of a publication has run, in this thread or in another."""
        self.run_ready()
        sent = pending.publication.properties.message_id
        while taken := tuple(one for one in self._runs.elsewhere() if one.publication.properties.message_id == sent):
            self._runs.wait_for_end(taken)

    def answer(self, pending: PendingPublish, calls: Calls) -> None:
        """Run what is ready and, while its reply does not arrive, what falls due before the caller of a call gives up."""
        self._outside_of_loops(lambda: self._wait_for_reply(pending, calls))

    def wait_until(self, condition: Callable[[], bool], seconds: float) -> None:
        """Run what is ready and, while the condition is not true, what falls due within `seconds`; then they are over."""
        self._outside_of_loops(lambda: self._wait_until(condition, self._clock.now() + seconds))

    @property
    def is_in_its_loop(self) -> bool:
        """Whether this code runs in the event loop of the tasks."""
        return self._loop.is_here

    def advance_to(self, moment: float) -> None:
        """Run what falls due until then (seconds since the epoch), each at its time."""
        self._outside_of_loops(lambda: self._advance_to(moment))

    def close(self) -> None:
        """Leave the lifespan of the app, and end all threads."""
        if self._lifespan is not None:
            self._lifespan.leave(timeout=10.0)
        self._loop.close()
        self._limits.stop()
        if self._stored_checks is not None:
            self._stored_checks.close()

    def _outside_of_loops(self, function: Callable[[], None]) -> None:
        """Call a function where no event loop runs: the tasks may use one of their own, as in a thread of a worker."""
        if asyncio._get_running_loop() is None:  # noqa: SLF001 - as `event_loop_warning` does
            function()
            return
        context = contextvars.copy_context()
        ended: Future[None] = Future()
        threading.Thread(
            target=context.run, args=(_complete, ended, function), name="inline-tasks", daemon=True
        ).start()
        if not self._loop.is_here:  # else the coroutine of a task awaits the reply to a call
            ended.result()

    def _drain(self) -> None:
        while (run := self._runs.take()) is not None:
            contextvars.copy_context().run(self._take, run)

    def _advance_to(self, moment: float) -> None:
        self._drain()
        while (due := self._broker.next_due) is not None and due <= moment:
            self._clock.move_to(due)
            self._broker.release_due()
            self._drain()
        self._clock.move_to(moment)
        self._broker.release_due()
        self._drain()

    def _wait_for_reply(self, pending: PendingPublish, calls: Calls) -> None:
        properties = pending.publication.properties
        correlation_id = properties.correlation_id or ""
        until = (time_of((properties.headers or {}).get(EXPIRES)) or 0) / 1000
        self._wait_until(lambda: not calls.is_pending(correlation_id), until)
        if (call := calls.take(correlation_id)) is not None:
            call.finish(None, call.timed_out(pending.timeout))

    def _wait_until(self, condition: Callable[[], bool], until: float) -> None:
        while True:
            self._drain()
            elsewhere = self._runs.elsewhere()  # first: what has ended by now is seen by the condition
            if condition():
                return
            if elsewhere and (seconds := until - self._clock.now()) > 0:
                self._runs.wait_for_end(elsewhere, seconds)
            elif (due := self._broker.next_due) is not None and due <= until:
                self._advance_to(due)
            else:
                self._clock.move_to(until)
                return

    def _take(self, run: InlineRun) -> None:
        """Take one delivery: claimed, run, settled, and its hooks called."""
        task_context.set(None)
        with self._runs.inside(run):
            self._deliver(run.publication)

    def _deliver(self, publication: Publication) -> None:
        app = self._app
        self._enter_lifespan()
        self._count += 1
        parts = self._parts._replace(publisher=app.producer.publisher)
        bench = Workbench(app.tasks, app.plan, app.settings, parts)
        bench.settler.draining.set()  # a store that fails is not waited for
        bench.settler.listeners.add(self._hooks.on_settled)
        bench.channel = bench.new_channel(publication.routing_key)
        bench.take(bench.deliver(publication))
        bench.flush()
        for event in bench.events:
            if isinstance(event.outcome, Requeue):
                raise AssertionError(f"The message {event.id} of task {event.task} was requeued: the log shows why.")
        self._hooks.call_waiting()

    def _enter_lifespan(self) -> None:
        if self._lifespan is None:
            made = self._app.lifespan
            lifespan = Lifespan(None if made is None else made(), self._loop.run_coroutine)
            lifespan.enter()
            self._lifespan = lifespan


def _complete(ended: Future[None], function: Callable[[], None]) -> None:
    try:
        function()
    except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
        ended.set_exception(error)
    else:
        ended.set_result(None)
