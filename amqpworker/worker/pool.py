"""
The runner threads of a worker process, and the event loop for its `async def` tasks.

Decides which thread runs what, and that a delivery is started once. How it ends is `runner`'s to decide and `settle`'s
to act on.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeAlias

from amqpworker.logs import get_logger, task_context
from amqpworker.message import Delivery
from amqpworker.outcome import Dead, Outcome, Requeue
from amqpworker.task import Call
from amqpworker.worker.context import Run
from amqpworker.worker.runner import Runner, failure_of
from amqpworker.worker.settle import Settler

__all__ = ["Pool"]

log = get_logger(__name__)

Work: TypeAlias = Callable[[], None]


class Pool:
    """Runs what is put into it on `threads` threads; `async_tasks` coroutines at once at the most."""

    def __init__(self, runner: Runner, settler: Settler, threads: int, async_tasks: int) -> None:
        self._runner = runner
        self._settler = settler
        self._queue: SimpleQueue[Delivery | Work | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, args=(number,), name=f"amqpworker-runner-{number}", daemon=True)
            for number in range(1, threads + 1)
        ]
        self._async_tasks = async_tasks
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_lock = threading.Lock()
        self._places: asyncio.Semaphore | None = None
        self.put = self._queue.put
        # By thread number, or by the id of a coroutine's run: what was claimed and is not settled yet.
        self.running: dict[int, Delivery] = {}

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def idle(self) -> bool:
        """Whether nothing runs."""
        return not self.running

    def stop(self) -> None:
        """Let each thread end after what it runs."""
        for _ in self._threads:
            self._queue.put(None)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)

    def _run(self, slot: int) -> None:
        get, running = self._queue.get, self.running
        while (work := get()) is not None:
            try:
                if isinstance(work, Delivery):
                    running[slot] = work
                    self._take(work)
                else:
                    work()
            except BaseException as error:
                log.error("runner_error", exc_info=error)
            running.pop(slot, None)

    def _take(self, delivery: Delivery) -> None:
        # Popping the tag claims the delivery: it may have been given back, or its channel may be gone.
        if delivery.channel.unstarted.pop(delivery.tag, None) is None:
            return
        try:
            prepared = self._runner.prepare(delivery)
            if not isinstance(prepared, tuple):
                self._settler.settle(delivery, prepared)
                return
            run, call = prepared
            if run.registered.signature.is_async:
                self._start_coroutine(run, call)
                return
            task_context.set(run)
            self._settler.settle(delivery, self._runner.call(run, call), run)
        except Exception as error:  # noqa: BLE001 - a defect of ours must not leave a message unsettled
            self._defect(delivery, error)
        finally:
            task_context.set(None)

    def _defect(self, delivery: Delivery, error: Exception) -> None:
        log.error("worker_defect", id=delivery.properties.message_id, queue=delivery.queue, exc_info=error)
        self._settler.settle(delivery, Dead("failed", failure_of(error)))

    # ---- coroutines -------------------------------------------------------------------------------------------------

    def _start_coroutine(self, run: Run, call: Call) -> None:
        self.running[id(run)] = run.delivery
        asyncio.run_coroutine_threadsafe(self._await(run, call), self._event_loop())

    def _event_loop(self) -> asyncio.AbstractEventLoop:
        """Return the event loop, which is started with the first coroutine."""
        with self._loop_lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._places = asyncio.Semaphore(self._async_tasks)
                threading.Thread(target=self._loop.run_forever, name="amqpworker-event-loop", daemon=True).start()
            return self._loop

    async def _await(self, run: Run, call: Call) -> None:
        assert self._places is not None
        outcome: Outcome
        async with self._places:
            if self._settler.draining.is_set():
                outcome = Requeue()
            else:
                task_context.set(run)
                outcome = await self._runner.await_call(run, call)
        # Storing a result may take a while, which is no work for an event loop.
        self._queue.put(lambda: self._settle(run, outcome))

    def _settle(self, run: Run, outcome: Outcome) -> None:
        task_context.set(run)
        try:
            self._settler.settle(run.delivery, outcome, run)
        except Exception as error:  # noqa: BLE001 - as above
            self._defect(run.delivery, error)
        finally:
            task_context.set(None)
            self.running.pop(id(run), None)
