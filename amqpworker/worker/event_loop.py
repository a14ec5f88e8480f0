"""
The event loop of a worker process, for its `async def` tasks.

Decides when one starts: so many run at once, the others wait unclaimed and can still be given back. How a run ends is
`executor`'s to decide and `settle`'s to act on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Any, TypeAlias, assert_never

from amqpworker.ipc.recorder import RunSlot, key_of
from amqpworker.lifecycle import start_thread
from amqpworker.log.logger import get_logger, task_context
from amqpworker.model.message import Delivery
from amqpworker.model.outcome import Dead, Discarded, Done, Outcome, Republish, Requeue, Retry
from amqpworker.worker.context import Run
from amqpworker.worker.executor import TaskExecutor
from amqpworker.worker.forked_children import leave_if_forked
from amqpworker.worker.limits.deadlines import RunAbandoned

__all__ = ["EventLoopRunner"]

log = get_logger(__name__)

SETTLING_THREADS = 4
CANCEL_SECONDS = 0.5
BEAT = 1.0

Settle: TypeAlias = Callable[[Delivery, Outcome, Run | None], None]


class EventLoopRunner:
    """
    Runs `async def` tasks, as many at once as there are `slots`; the loop and its thread are there from `start` on.

    `running` is that of the runners: what was claimed and is not settled yet, by the number of its slot.
    """

    def __init__(
        self, runner: TaskExecutor, settle: Settle, slots: list[RunSlot], running: dict[int, Delivery]
    ) -> None:
        self._runner = runner
        self._settle = settle
        self._running = running
        self._free = len(slots)
        self._slots = list(slots)
        self.beat: Callable[[], None] = lambda: None
        """Called once in a while by the event loop's thread, while it has one."""
        self._lock = threading.Lock()
        self._waiting: deque[Delivery] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        # From the first on, what fails does not count any more; from the second on, whatever becomes of it.
        self._given_up = False
        self._cancelled = False
        self._stopping = False
        self._process = os.getpid()
        # Storing a result may take a while, which is no work for an event loop; runner threads may be busy for long.
        self._storing = ThreadPoolExecutor(SETTLING_THREADS, thread_name_prefix="amqpworker-store")
        # What needs no store does not wait for one that is away.
        self._copying = ThreadPoolExecutor(SETTLING_THREADS, thread_name_prefix="amqpworker-settle")

    def start(self) -> None:
        """
        Start the loop and its thread before the first task.

        Raises:
            NoThread: there is no room for it.
        """
        with self._lock:
            self._started_loop()

    def put(self, delivery: Delivery) -> None:
        """Run a delivery of an `async def` task as soon as a slot is free; from any thread."""
        with self._lock:
            if not self._free:
                self._waiting.append(delivery)
                return
            self._free -= 1
            loop = self._started_loop()
        with contextlib.suppress(RuntimeError):  # closed: the worker stops
            loop.call_soon_threadsafe(self._start, delivery)

    @property
    def has_room(self) -> bool:
        """Whether another delivery could start at once."""
        return self._free > 0

    def awaits(self, coroutine: Coroutine[Any, Any, Any], timeout: float | None = None) -> Any:
        """
        Run a coroutine beside the tasks, from another thread, and return what it returns.

        Raises:
            TimeoutError: it has not ended within `timeout` seconds, and is cancelled.
        """
        with self._lock:
            loop = self._started_loop()
        future = asyncio.run_coroutine_threadsafe(coroutine, loop)
        try:
            return future.result(timeout)
        except TimeoutError:
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

    def let_go(self) -> None:
        """Drop the waiting deliveries that were taken back."""
        with self._lock:
            self._waiting = deque(one for one in self._waiting if one.channel.is_unclaimed(one))

    def abandon(self) -> None:
        """Cancel what still runs: its message comes again, whatever the coroutine makes of it. The loop goes on."""
        self._given_up = True
        with self._lock:
            has_loop = self._loop is not None
        if has_loop:
            # A task holds the loop up, or cancels all that it can find.
            with contextlib.suppress(TimeoutError, CancelledError):
                self.awaits(self._cancel_all(), CANCEL_SECONDS * 2)

    def cut_off(self) -> None:
        """Discard what coroutines that still run return from now on."""
        self._cancelled = True

    def stop(self) -> None:
        """End the loop, and what still runs in it."""
        with self._lock:
            self._stopping = True
            loop, thread = self._loop, self._thread
        if loop is not None and thread is not None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(loop.stop)
            thread.join(CANCEL_SECONDS * 2)
        self._storing.shutdown(wait=False)
        self._copying.shutdown(wait=False)

    # ---- in the event loop's thread ---------------------------------------------------------------------------------

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        self.beat()
        loop.call_later(BEAT, self._beat, loop)

    def _run_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        self._beat(loop)
        while not self._stopping:
            # Again, where a task has stopped the loop that it shares with others.
            try:
                loop.run_forever()
            except BaseException as error:
                log.error("event_loop_interrupted", effect="it goes on", exc_info=error)
        loop.run_until_complete(self._cancel_all())
        if not self._tasks:
            loop.close()

    async def _cancel_all(self) -> None:
        self._cancelled = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CANCEL_SECONDS)

    def _start(self, delivery: Delivery) -> None:
        task = asyncio.get_running_loop().create_task(self._take(delivery))
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._on_done(task, delivery))

    def _on_done(self, task: asyncio.Task[None], delivery: Delivery) -> None:
        self._tasks.discard(task)
        # `_take` lets no error out: it was cancelled before its first step, by a task that cancels all it can find.
        if task.cancelled() and not self._cancelled:
            if delivery.channel.is_unclaimed(delivery):
                self._start(delivery)
            else:
                self._next()

    async def _take(self, delivery: Delivery) -> None:
        # Noted first, then claimed: who drains must never see it as neither waiting nor running.
        self._running[id(delivery)] = delivery
        if self._cancelled or not delivery.channel.claim(delivery):
            self._running.pop(id(delivery), None)
        else:
            try:
                await self._run(delivery)
            except RunAbandoned:
                pass  # the worker ends
            except BaseException as error:  # noqa: BLE001 - a defect of ours must not leave a message unsettled
                self._end(delivery, self._runner.defect(delivery, error), None)
        self._next()

    async def _run(self, delivery: Delivery) -> None:
        run = self._runner.admit(delivery)
        if not isinstance(run, Run):
            self._end(delivery, run, None)
            return
        task_context.set(run)
        slot = self._slots.pop()
        slot.begin(key_of(delivery), run)
        outcome = await self._runner.await_call(run)
        leave_if_forked(self._process)
        slot.end()
        self._slots.append(slot)
        # What has ended by itself was settled before it could be cancelled.
        if self._cancelled or (self._given_up and not isinstance(outcome, Done)):
            return
        self._end(delivery, outcome, run)

    def _end(self, delivery: Delivery, outcome: Outcome, run: Run | None) -> None:
        match outcome:
            case Done(value=None) | Discarded() | Requeue():
                self._settle_it(delivery, outcome, run)
            case Done() | Dead() if run is None or run.registered.stores_result:
                self._storing.submit(self._settle_it, delivery, outcome, run)
            case Done() | Dead() | Retry() | Republish():
                # In threads, too: a copy may turn out too large, and end as a dead letter whose failure is stored.
                self._copying.submit(self._settle_it, delivery, outcome, run)
            case _:
                assert_never(outcome)

    def _settle_it(self, delivery: Delivery, outcome: Outcome, run: Run | None) -> None:
        task_context.set(run)
        try:
            self._settle(delivery, outcome, run)
        finally:
            task_context.set(None)
            self._running.pop(id(delivery), None)

    def _next(self) -> None:
        """Give the slot to whoever waits."""
        with self._lock:
            if not self._waiting:
                self._free += 1
                return
            following = self._waiting.popleft()
        self._start(following)
