"""
The runner threads of a worker process.

Decides which thread runs what, and that a delivery is started once; `async def` tasks go to `coroutines`. How a run ends
is `runner`'s to decide and `settle`'s to act on.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Coroutine
from queue import Empty, SimpleQueue
from typing import Any

from amqpworker.logs import get_logger, task_context
from amqpworker.message import Delivery
from amqpworker.outcome import Outcome, Requeue
from amqpworker.worker.context import Run
from amqpworker.worker.coroutines import Coroutines
from amqpworker.worker.forked import leave_if_forked
from amqpworker.worker.isolation import Isolation
from amqpworker.worker.limits import Overtaken
from amqpworker.worker.recorder import Recorder, Slot, key_of
from amqpworker.worker.runner import Runner
from amqpworker.worker.settle import Settler

__all__ = ["Pool"]

log = get_logger(__name__)


class Pool:
    """
    Runs what is put into it, in `places`: on so many threads, and so many coroutines at once at the most.

    A thread waits while `isolation` runs a task for it. Each has a place in the flight recorder, which has as many.
    """

    def __init__(
        self,
        runner: Runner,
        settler: Settler,
        isolation: Isolation,
        places: tuple[int, int],
        recorder: Recorder | None = None,
    ) -> None:
        threads, async_tasks = places
        self._runner = runner
        self._settler = settler
        self._isolation = isolation
        self._process = os.getpid()
        recorder = Recorder(threads + async_tasks) if recorder is None else recorder
        self._queue: SimpleQueue[Delivery | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, args=(number, slot), name=f"amqpworker-runner-{number}", daemon=True)
            for number, slot in enumerate(recorder.slots[:threads], 1)
        ]
        # By thread number, or by the id of a coroutine's delivery: what was claimed and is not settled yet.
        self.running: dict[int, Delivery] = {}
        self._coroutines = Coroutines(runner, self._settle, recorder.slots[threads:], self.running)
        # Looked up for each delivery only where there are both kinds of tasks.
        self.put: Callable[[Delivery], None] = self._route if runner.has_coroutines else self._queue.put
        # Nothing runs in the event loop that may take its process down.
        self.put_isolated: Callable[[Delivery], None] = self._queue.put

    def on_beat(self, beat: Callable[[], None]) -> None:
        """Have `beat` called about once in a second by the event loop's thread; before `start`."""
        self._coroutines.beat = beat

    def awaits(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in the event loop of the tasks, and return what it returns."""
        return self._coroutines.awaits(coroutine)

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def let_go(self) -> None:
        """Drop the deliveries that were taken back before they began, with their bodies; by the thread that puts."""
        waiting: list[Delivery | None] = []
        with contextlib.suppress(Empty):
            while True:
                waiting.append(self._queue.get_nowait())
        for delivery in waiting:
            if delivery is None or delivery.tag in delivery.intake.unstarted:
                self._queue.put(delivery)
        self._coroutines.let_go()

    def idle(self) -> bool:
        """Whether nothing runs."""
        return not self.running

    def stop(self) -> None:
        """Let each thread end after what it runs, and cancel coroutines."""
        for _ in self._threads:
            self._queue.put(None)
        self._coroutines.stop()

    def _route(self, delivery: Delivery) -> None:
        """Coroutines have places of their own: they do not wait until a thread is free."""
        if self._runner.is_coroutine(delivery):
            self._coroutines.put(delivery)
        else:
            self._queue.put(delivery)

    def _run(self, number: int, slot: Slot) -> None:
        get, running = self._queue.get, self.running
        while (delivery := get()) is not None:
            # Before it is claimed: who drains must never see it as neither waiting nor running.
            running[number] = delivery
            self._take(delivery, slot)
            running.pop(number, None)

    def _take(self, delivery: Delivery, slot: Slot) -> None:
        # Popping the tag claims the delivery: it may have been given back, or its channel may be gone.
        if delivery.intake.unstarted.pop(delivery.tag, None) is None:
            return
        outcome: Outcome
        run: Run | None = None
        try:
            admitted = self._runner.admit(delivery)
            if isinstance(admitted, Run):
                run = admitted
                task_context.set(run)
                slot.begin(key_of(delivery), run)
                if run.registered.isolated or delivery.tag in delivery.intake.suspects:
                    delivery.intake.suspects.discard(delivery.tag)
                    outcome = self._isolation.run(run)
                else:
                    outcome = self._runner.call(run)
            else:
                outcome = admitted
        except Overtaken:
            task_context.set(None)
            return
        except BaseException as error:  # noqa: BLE001 - a defect of ours must not leave a message unsettled
            outcome = self._runner.defect(delivery, error)
        leave_if_forked(self._process)
        slot.end()
        self._settle(delivery, outcome, run)
        task_context.set(None)

    def _settle(self, delivery: Delivery, outcome: Outcome, run: Run | None) -> None:
        """Settle in any case: what cannot be settled as it should goes as a dead letter, or back to its queue."""
        if run is not None and log.wants_debug():
            log.debug("task_ran", outcome=type(outcome).__name__.lower(), seconds=round(time.time() - run.started, 4))
        try:
            self._settler.settle(delivery, outcome, run)
        except BaseException as error:  # noqa: BLE001 - as above
            dead = self._runner.defect(delivery, error)
            try:
                self._settler.settle(delivery, dead)
            except BaseException as another:
                log.error("not_settled", queue=delivery.queue, exc_info=another)
                self._settler.settle(delivery, Requeue())
