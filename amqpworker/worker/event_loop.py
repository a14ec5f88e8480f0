"""
The event loop of a worker process, for its `async def` tasks.

Decides when a task starts (a limited number run at once, the others wait unclaimed and can still be requeued), and which
thread settles its delivery.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Any, assert_never

from amqpworker.ipc.recorder import RunSlot
from amqpworker.lifecycle import start_thread
from amqpworker.log.logger import get_logger, task_context
from amqpworker.model.message import Delivery
from amqpworker.model.outcome import (
    AlreadyDone,
    Cancelled,
    Dead,
    Deferred,
    Discarded,
    Done,
    Outcome,
    Postpone,
    Republish,
    Requeue,
    Retry,
    Snooze,
)
from amqpworker.worker.context import Run
from amqpworker.worker.pipeline import Acceptance, Pipeline
from amqpworker.worker.start_queue import StartQueue, drop_requeued

log = get_logger(__name__)

SETTLING_THREADS = 4
CANCEL_SECONDS = 0.5
INTERRUPT_AGAIN = 5.0
BEAT_SECONDS = 1.0


class EventLoopRunner:
    """
    Runs `async def` tasks, as many at once as there are `slots`; the loop and its thread exist from `start` on.

    `running`, shared with the runner threads, has what was claimed and is not settled yet, here by the id of the delivery.
    `waiting` is empty, and decides the order of what waits for a slot.
    """

    def __init__(
        self, pipeline: Pipeline, slots: list[RunSlot], running: dict[int, Delivery], waiting: StartQueue
    ) -> None:
        self._pipeline = pipeline
        self._running = running
        self._free = len(slots)
        self._slots = list(slots)
        self.beat: Callable[[], None] = lambda: None
        """Called once per second by the event loop's thread, while it has one."""
        self._lock = threading.Lock()
        self._waiting = waiting
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._tasks: dict[asyncio.Task[None], Delivery] = {}
        self._acceptance = Acceptance()
        self._stopping = False
        # To publish a copy may take a while, and would block the event loop; runner threads may be busy for long.
        self._publishing = ThreadPoolExecutor(SETTLING_THREADS, thread_name_prefix="amqpworker-settle")

    def start(self) -> None:
        """Start the loop and its thread before the first task; raises ThreadLimitReached without room for it."""
        with self._lock:
            self._started_loop()

    def put(self, delivery: Delivery) -> None:
        """Run a delivery of an `async def` task as soon as a slot is free; from any thread."""
        with self._lock:
            if not self._free:
                self._waiting.put(delivery)
                return
            self._free -= 1
            loop = self._started_loop()
        with contextlib.suppress(RuntimeError):  # closed: the worker stops
            loop.call_soon_threadsafe(self._start, delivery)

    @property
    def has_room(self) -> bool:
        """Whether another delivery could start at once."""
        return self._free > 0

    def run_coroutine(self, coroutine: Coroutine[Any, Any, Any], timeout: float | None = None) -> Any:
        """
        Run a coroutine beside the tasks, from another thread, and return what it returns.

        Raises TimeoutError if it has not ended within `timeout` seconds; then it is cancelled.
        """
        with self._lock:
            loop = self._started_loop()
        future = asyncio.run_coroutine_threadsafe(coroutine, loop)
        try:
            return future.result(timeout)
        except BaseException:  # a time limit may interrupt the thread that waits, too
            future.cancel()
            raise

    def _started_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            loop = asyncio.new_event_loop()
            thread = threading.Thread(target=self._run_loop, args=(loop,), name="amqpworker-event-loop", daemon=True)
            try:
                start_thread(thread)
            except BaseException:
                loop.close()
                raise
            self._loop, self._thread = loop, thread
        return self._loop

    def drop_requeued(self) -> None:
        """Drop the waiting deliveries that were requeued."""
        with self._lock:
            drop_requeued(self._waiting)

    def interrupt(self, delivery: Delivery) -> None:
        """Cancel the coroutine of a delivery, and again every few seconds until it has ended; from any thread."""
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # closed: the worker stops
                loop.call_soon_threadsafe(self._interrupt, loop, delivery)

    def abandon(self) -> None:
        """Cancel what still runs: its messages are redelivered, whatever the coroutines do after that. The loop continues."""
        self._acceptance.ignore_failures()
        with self._lock:
            has_loop = self._loop is not None
        if has_loop:
            # A task may block the loop, or cancel all that it finds.
            with contextlib.suppress(TimeoutError, CancelledError):
                self.run_coroutine(self._cancel_all(), CANCEL_SECONDS * 2)

    def discard_results(self) -> None:
        """Discard the results of coroutines that are still running."""
        self._acceptance.ignore_all()

    def stop(self) -> None:
        """End the loop, and the coroutines that still run in it."""
        with self._lock:
            self._stopping = True
            loop, thread = self._loop, self._thread
        if loop is not None and thread is not None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(loop.stop)
            thread.join(CANCEL_SECONDS * 2)
        self._publishing.shutdown(wait=False)

    # ---- in the event loop's thread ---------------------------------------------------------------------------------

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        self.beat()
        loop.call_later(BEAT_SECONDS, self._beat, loop)

    def _run_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        self._beat(loop)
        while not self._stopping:
            # Run it again if a task has stopped the loop, which it shares with others.
            try:
                loop.run_forever()
            except BaseException as error:
                log.error("event_loop_interrupted", effect="it continues", exc_info=error)
        loop.run_until_complete(self._cancel_all())
        if not self._tasks:
            loop.close()

    async def _cancel_all(self) -> None:
        self._acceptance.ignore_all()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CANCEL_SECONDS)

    def _interrupt(self, loop: asyncio.AbstractEventLoop, delivery: Delivery) -> None:
        for task in [task for task, its in self._tasks.items() if its is delivery]:
            task.cancel()
            loop.call_later(INTERRUPT_AGAIN, self._interrupt, loop, delivery)

    def _start(self, delivery: Delivery) -> None:
        task = asyncio.get_running_loop().create_task(self._execute(delivery))
        self._tasks[task] = delivery
        task.add_done_callback(lambda task: self._on_done(task, delivery))

    def _on_done(self, task: asyncio.Task[None], delivery: Delivery) -> None:
        self._tasks.pop(task, None)
        # `_execute` raises nothing: a task that cancels all that it finds has cancelled it before its first step.
        if task.cancelled() and self._acceptance.results:
            if delivery.channel.is_unclaimed(delivery):
                self._start(delivery)
            else:
                self._start_next()

    async def _execute(self, delivery: Delivery) -> None:
        # Before it is claimed: a drain must never see it as neither waiting nor running.
        self._running[id(delivery)] = delivery
        if not await self._pipeline.execute_async(delivery, self._slots, self._acceptance, self._settle):
            self._running.pop(id(delivery), None)
        self._start_next()

    def _settle(self, delivery: Delivery, outcome: Outcome, run: Run | None) -> None:
        match outcome:
            case Done() | AlreadyDone() | Discarded() | Requeue():
                self._settle_here(delivery, outcome, run)
            case Dead() | Cancelled() | Retry() | Snooze() | Postpone() | Deferred() | Republish():
                # A copy may be too large, and end as a dead letter whose failure is stored.
                self._publishing.submit(self._settle_here, delivery, outcome, run)
            case _:
                assert_never(outcome)

    def _settle_here(self, delivery: Delivery, outcome: Outcome, run: Run | None) -> None:
        task_context.set(run)
        try:
            self._pipeline.settle(delivery, outcome, run)
        finally:
            task_context.set(None)
            self._running.pop(id(delivery), None)

    def _start_next(self) -> None:
        """Start the delivery that is next, or free the slot."""
        with self._lock:
            following = None if self._waiting.empty() else self._waiting.get_nowait()
            if following is None:
                self._free += 1
                return
        self._start(following)
