"""
The runner threads of a worker process.

Decides which thread runs what; `async def` tasks go to `event_loop`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from amqpworker.broker.consumer_channel import ConsumerChannel
from amqpworker.ipc.recorder import Recorder, RunSlot, read_recording
from amqpworker.lifecycle import start_thread
from amqpworker.model.message import Delivery
from amqpworker.worker.event_loop import EventLoopRunner
from amqpworker.worker.isolation.permits import Permits
from amqpworker.worker.limits.ack_timeout_report import with_seconds
from amqpworker.worker.pipeline import Acceptance, Pipeline
from amqpworker.worker.start_queue import StartQueue, drop_requeued, make_start_queue


@dataclass(frozen=True, slots=True)
class Concurrency:
    """
    How much runs at once: on `threads`, and in the event loop.

    A queue that is named in `own` has that many threads of its own: they serve only this queue, and no others serve it. At
    most `suspects` threads run messages that may have crashed a process. The queues in `bounded` have a bound.
    """

    threads: int
    async_tasks: int
    own: Mapping[str, int] = field(default_factory=dict)
    suspects: int = 1
    bounded: frozenset[str] = frozenset()


class RunnerThreads:
    """
    Runs the deliveries that are put into it, as many at once as its `concurrency` allows.

    A thread waits while an isolated process runs a task for it. Each has a slot in the flight recorder.
    """

    def __init__(self, pipeline: Pipeline, concurrency: Concurrency, recorder: Recorder | None = None) -> None:
        self._pipeline = pipeline
        self.settle = pipeline.settle
        self._executor = executor = pipeline.executor
        self.is_coroutine = executor.is_coroutine
        self._acceptance = Acceptance()
        self.permits = Permits(concurrency.suspects)
        bounded = concurrency.bounded
        self._shared = make_start_queue(bounded.difference(concurrency.own))
        self._own = {queue: make_start_queue(bounded.intersection({queue})) for queue in concurrency.own}
        own = [start_queue for queue, start_queue in self._own.items() for _ in range(concurrency.own[queue])]
        # For each thread, the queue that it takes deliveries from.
        self._start_queues = [self._shared] * concurrency.threads + own
        threads = len(self._start_queues)
        recorder = Recorder(threads + concurrency.async_tasks) if recorder is None else recorder
        self._recorder = recorder
        self._threads = [
            threading.Thread(
                target=self._work, args=(number, slot, start_queue), name=f"amqpworker-runner-{number}", daemon=True
            )
            for number, (slot, start_queue) in enumerate(zip(recorder.slots, self._start_queues, strict=False), 1)
        ]
        # By thread number, or by the id of a coroutine's delivery: what was claimed and is not settled yet.
        self.running: dict[int, Delivery] = {}
        waiting = make_start_queue(bounded)
        self.event_loop = EventLoopRunner(pipeline, recorder.slots[threads:], self.running, waiting)
        # Each delivery is routed only if there is more than one start queue, or both kinds of tasks.
        self._to_thread: Callable[[Delivery], None] = self._to_start_queue if concurrency.own else self._shared.put
        self.put: Callable[[Delivery], None] = self._route if executor.has_coroutines else self._to_thread
        # Nothing runs in the event loop that may crash its process.
        self.put_isolated: Callable[[Delivery], None] = self._to_thread

    def start(self) -> None:
        """Start the threads, including that of the event loop if a task needs it; raises ThreadLimitReached without room."""
        self._executor.start()
        for thread in self._threads:
            start_thread(thread)
        if self._executor.has_coroutines:
            self.event_loop.start()

    def drop_requeued(self) -> None:
        """Drop the deliveries that were requeued before they were claimed, with their bodies; for the thread that calls `put`."""
        for start_queue in (self._shared, *self._own.values()):
            drop_requeued(start_queue)
        self.event_loop.drop_requeued()
        # The next one to take a free permit may be among those that were dropped: so all others ask again.
        for delivery in self.permits.take_waiting():
            self._to_thread(delivery)

    def running_on(self, channel: ConsumerChannel) -> list[tuple[Delivery, float]]:
        """Return the deliveries of a channel whose tasks run, each with the seconds that it has run; from any thread."""
        return [one for one in self.running_now() if one[0].channel is channel]

    def running_now(self) -> list[tuple[Delivery, float]]:
        """Return the deliveries whose tasks run, each with the seconds that it has run; from any thread."""
        running = list(self.running.values())
        return with_seconds(running, read_recording(self._recorder.memory), time.time()) if running else []

    def has_room(self, queue: str) -> bool:
        """Whether a message of a queue could start at once, in a thread or in the event loop; from any thread."""
        start_queue = self._own.get(queue, self._shared)
        if not (start_queue.empty() and self.event_loop.has_room):
            return False
        return any(
            one is start_queue and number not in self.running for number, one in enumerate(self._start_queues, 1)
        )

    def interrupt(self, number: int, delivery: Delivery) -> None:
        """End the run of a delivery that is in `running` by this number, since it is cancelled; from any thread."""
        if number > len(self._threads):
            self.event_loop.interrupt(delivery)
        elif (thread := self._threads[number - 1].ident) is not None:
            self._executor.interrupt(delivery, thread, lambda: self.running.get(number) is not delivery)

    @property
    def is_idle(self) -> bool:
        """Whether no task runs."""
        return not self.running

    def abandon(self) -> None:
        """Abandon the running tasks, so that their messages are redelivered: coroutines are cancelled, threads continue."""
        self._acceptance.ignore_failures()
        self.event_loop.abandon()

    def discard_results(self) -> None:
        """Discard the results of tasks from now on: the processes that they wait for are being ended."""
        self._acceptance.ignore_all()
        self.event_loop.discard_results()

    def stop(self) -> None:
        """Let each thread end after its present task, and end the event loop."""
        for start_queue in self._start_queues:
            start_queue.put(None)
        self.event_loop.stop()
        self._pipeline.close()

    def _route(self, delivery: Delivery) -> None:
        """Put a delivery where its task can run: coroutines do not wait for a free thread."""
        if self._executor.is_coroutine(delivery):
            self.event_loop.put(delivery)
        else:
            self._to_thread(delivery)

    def _to_start_queue(self, delivery: Delivery) -> None:
        self._own.get(delivery.queue, self._shared).put(delivery)

    def _work(self, number: int, slot: RunSlot, start_queue: StartQueue) -> None:
        get, running, execute, acceptance = start_queue.get, self.running, self._pipeline.execute, self._acceptance
        while (delivery := get()) is not None:
            # Before it is claimed: a drain must never see it as neither waiting nor running.
            running[number] = delivery
            if delivery.is_suspect:
                self._execute_suspect(delivery, slot)
            else:
                execute(delivery, slot, acceptance)
            running.pop(number, None)

    def _execute_suspect(self, delivery: Delivery, slot: RunSlot) -> None:
        """Run a suspect, or let it wait unclaimed for a permit. Tasks with `isolated=True` need none."""
        if self._executor.is_isolated(delivery):
            self._pipeline.execute(delivery, slot, self._acceptance)
        elif self.permits.acquire(delivery):
            self._pipeline.execute(delivery, slot, self._acceptance, isolated=True)
            if (following := self.permits.release()) is not None:
                self._to_thread(following)
