"""
The runner threads of a worker process.

Decides which thread runs what, and that a delivery is started once; `async def` tasks go to `event_loop`. How a run ends
is `executor`'s to decide and `settle`'s to act on.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias

from amqpworker.broker.consumer_channel import ConsumerChannel
from amqpworker.ipc.recorder import Recorder, RunSlot, key_of, read
from amqpworker.lifecycle import start_thread
from amqpworker.log.logger import get_logger, task_context
from amqpworker.model.message import Delivery
from amqpworker.model.outcome import Done, Outcome, Requeue
from amqpworker.worker.context import Run
from amqpworker.worker.event_loop import EventLoopRunner
from amqpworker.worker.executor import TaskExecutor
from amqpworker.worker.forked_children import leave_if_forked
from amqpworker.worker.isolation.permits import Permits
from amqpworker.worker.isolation.pool import Isolation
from amqpworker.worker.limits.ack_timeout_report import seconds_of
from amqpworker.worker.limits.deadlines import RunAbandoned
from amqpworker.worker.settle import Settler

__all__ = ["Concurrency", "RunnerThreads"]

log = get_logger(__name__)

Line: TypeAlias = "SimpleQueue[Delivery | None]"


@dataclass(frozen=True, slots=True)
class Concurrency:
    """
    How much runs at once: on `threads`, and in the event loop.

    A queue that is named in `own` has so many threads of its own: they serve nothing else, and no others serve it. Of what
    the threads run, at most `suspects` are messages that may take their process down.
    """

    threads: int
    async_tasks: int
    own: Mapping[str, int] = field(default_factory=dict)
    suspects: int = 1


class RunnerThreads:
    """
    Runs what is put into it, as much at once as its `concurrency` allows.

    A thread waits while `pool` runs a task for it. Each has a slot in the flight recorder.
    """

    def __init__(
        self,
        runner: TaskExecutor,
        settler: Settler,
        isolation: Isolation,
        concurrency: Concurrency,
        recorder: Recorder | None = None,
    ) -> None:
        self._runner = runner
        self._settler = settler
        self._isolation = isolation
        self._process = os.getpid()
        self._abandoned = self._cut_off = False
        self._permits = Permits(concurrency.suspects)
        self._shared: Line = SimpleQueue()
        self._own: dict[str, Line] = {queue: SimpleQueue() for queue in concurrency.own}
        # The line that each thread takes from.
        own = [line for queue, line in self._own.items() for _ in range(concurrency.own[queue])]
        self._lines = [self._shared] * concurrency.threads + own
        threads = len(self._lines)
        recorder = Recorder(threads + concurrency.async_tasks) if recorder is None else recorder
        self._recorder = recorder
        self._threads = [
            threading.Thread(
                target=self._run, args=(number, slot, line), name=f"amqpworker-runner-{number}", daemon=True
            )
            for number, (slot, line) in enumerate(zip(recorder.slots, self._lines, strict=False), 1)
        ]
        # By thread number, or by the id of a coroutine's delivery: what was claimed and is not settled yet.
        self.running: dict[int, Delivery] = {}
        self._coroutines = EventLoopRunner(runner, self._settle, recorder.slots[threads:], self.running)
        # Looked up for each delivery only where there is more than one line, or both kinds of tasks.
        self._to_thread: Callable[[Delivery], None] = self._to_line if concurrency.own else self._shared.put
        self.put: Callable[[Delivery], None] = self._route if runner.has_coroutines else self._to_thread
        # Nothing runs in the event loop that may take its process down.
        self.put_isolated: Callable[[Delivery], None] = self._to_thread

    def on_beat(self, beat: Callable[[], None]) -> None:
        """Have `beat` called about once in a second by the event loop's thread; before `start`."""
        self._coroutines.beat = beat

    def awaits(self, coroutine: Coroutine[Any, Any, Any], timeout: float | None = None) -> Any:
        """
        Run a coroutine in the event loop of the tasks, and return what it returns.

        Raises:
            TimeoutError: it has not ended within `timeout` seconds.
        """
        return self._coroutines.awaits(coroutine, timeout)

    def start(self) -> None:
        """
        Start the threads, including that of the event loop if a task needs it.

        Raises:
            NoThread: there is no room for all of them.
        """
        self._runner.start()
        for thread in self._threads:
            start_thread(thread)
        if self._runner.has_coroutines:
            self._coroutines.start()

    def let_go(self) -> None:
        """Drop the deliveries that were taken back before they began, with their bodies; by the thread that puts."""
        for line in (self._shared, *self._own.values()):
            let_go(line)
        self._coroutines.let_go()
        # One that was to take a free permit may be among those that were dropped: so all others ask again.
        for delivery in self._permits.take_back():
            self._to_thread(delivery)

    def running_on(self, channel: ConsumerChannel) -> list[tuple[Delivery, float]]:
        """Return the deliveries of a channel whose tasks run, and for how many seconds; from any thread."""
        running = [delivery for delivery in list(self.running.values()) if delivery.channel is channel]
        return seconds_of(running, read(self._recorder.memory), time.time())

    def has_room(self, queue: str) -> bool:
        """Whether a message of a queue could start at once, in a thread or in the event loop; from any thread."""
        line = self._own.get(queue, self._shared)
        if not (line.empty() and self._coroutines.has_room):
            return False
        return any(one is line and number not in self.running for number, one in enumerate(self._lines, 1))

    def idle(self) -> bool:
        """Whether nothing runs."""
        return not self.running

    def abandon(self) -> None:
        """
        Give up what runs, so that its messages come again: coroutines are cancelled.

        A thread goes on; what its task returns still counts, and what it raises does not: most likely it misses what has
        been closed under it.
        """
        self._abandoned = True
        self._coroutines.abandon()

    def cut_off(self) -> None:
        """Discard what tasks return from now on: the processes that they wait for are ended."""
        self._cut_off = True
        self._coroutines.cut_off()

    def stop(self) -> None:
        """Let each thread end after what it runs, and end the event loop."""
        for line in self._lines:
            line.put(None)
        self._coroutines.stop()

    def _route(self, delivery: Delivery) -> None:
        """Put a delivery where its task can run: coroutines do not wait until a thread is free."""
        if self._runner.is_coroutine(delivery):
            self._coroutines.put(delivery)
        else:
            self._to_thread(delivery)

    def _to_line(self, delivery: Delivery) -> None:
        self._own.get(delivery.queue, self._shared).put(delivery)

    def _run(self, number: int, slot: RunSlot, line: Line) -> None:
        get, running = line.get, self.running
        while (delivery := get()) is not None:
            # Before it is claimed: who drains must never see it as neither waiting nor running.
            running[number] = delivery
            if delivery.channel.is_suspect(delivery):
                self._take_suspect(delivery, slot)
            else:
                self._take(delivery, slot)
            running.pop(number, None)

    def _take_suspect(self, delivery: Delivery, slot: RunSlot) -> None:
        """Run a suspect, or let it wait unclaimed while as many run as may. Tasks that are isolated anyway do not count."""
        if self._runner.is_isolated(delivery):
            delivery.channel.unmark_suspect(delivery)
            self._take(delivery, slot)
        elif self._permits.acquire(delivery):
            delivery.channel.unmark_suspect(delivery)
            self._take(delivery, slot, isolated=True)
            if (following := self._permits.release()) is not None:
                self._to_thread(following)

    @property
    def waiting_suspects(self) -> int:
        """How many suspects wait until another has run."""
        return self._permits.waiting

    def _take(self, delivery: Delivery, slot: RunSlot, isolated: bool = False) -> None:
        # It may have been requeued, or its channel may be closed.
        if not delivery.channel.claim(delivery):
            return
        outcome: Outcome
        run: Run | None = None
        try:
            admitted = self._runner.admit(delivery)
            if isinstance(admitted, Run):
                run = admitted
                task_context.set(run)
                slot.begin(key_of(delivery), run)
                call = self._isolation.run if isolated or run.registered.isolated else self._runner.call
                outcome = call(run)
            else:
                outcome = admitted
        except RunAbandoned:
            task_context.set(None)
            return
        except BaseException as error:  # noqa: BLE001 - a defect of ours must not leave a message unsettled
            outcome = self._runner.defect(delivery, error)
        leave_if_forked(self._process)
        slot.end()
        if not self._abandoned or (isinstance(outcome, Done) and not self._cut_off):
            self._settle(delivery, outcome, run)
        task_context.set(None)

    def _settle(self, delivery: Delivery, outcome: Outcome, run: Run | None) -> None:
        """Settle in any case: what cannot be settled as it should goes as a dead letter, or back to its queue."""
        try:
            self._settler.settle(delivery, outcome, run)
        except BaseException as error:  # noqa: BLE001 - as above
            dead = self._runner.defect(delivery, error)
            try:
                self._settler.settle(delivery, dead)
            except BaseException as another:
                log.error("not_settled", queue=delivery.queue, exc_info=another)
                self._settler.settle(delivery, Requeue())


def let_go(line: Line) -> None:
    """Drop from a line the deliveries that were taken back; by the thread that puts."""
    waiting: list[Delivery | None] = []
    with contextlib.suppress(Empty):
        while True:
            waiting.append(line.get_nowait())
    for delivery in waiting:
        if delivery is None or delivery.channel.is_unclaimed(delivery):
            line.put(delivery)
