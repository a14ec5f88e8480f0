"""
Adapt how many messages a process holds of each queue, for `--prefetch auto`.

Decides which runs are measured, and when another prefetch is asked for; `prefetch_size` decides which one.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from amqpworker.hooks import Settled
from amqpworker.model.message import Delivery
from amqpworker.model.outcome import Deferred
from amqpworker.worker.options import MAX_PREFETCH
from amqpworker.worker.prefetch_size import MAX_AUTO, WAITING_SECONDS, Places, Work, fitting_prefetch
from amqpworker.worker.service import Service

CHANGE_EVERY = 10.0
# Runs that are measured between two beats: all of them if there are few; else some are enough for their average.
SAMPLES = 64


@dataclass(slots=True)
class _TunedQueue:
    """A queue: the `fitting` number for its work, `spare` places for stuck messages, and the `prefetch` that was set."""

    places: Places
    fitting: int = field(init=False)
    prefetch: int = field(init=False)
    spare: int = 0
    work: Work = field(default_factory=Work)
    not_before: float = 0.0

    def __post_init__(self) -> None:
        self.fitting = self.prefetch = self.places.first_prefetch

    def tune(self, work: Work, coroutines: int, stuck: int, now: float) -> bool:
        """Decide on a prefetch by this work, and by how many coroutines run; return whether these were enough runs."""
        before = self.prefetch
        # Nothing more can arrive while coroutines fill the prefetch, although others could run beside them.
        is_enough = work.is_enough(self.places) or coroutines >= before
        if is_enough:
            self.fitting = fitting_prefetch(work, self.places, self.fitting)
            self.work = self.work.halved()
        # Coarse, since each change delivers a whole prefetch anew.
        if not self.spare / 2 <= stuck <= self.spare:
            self.spare = min(stuck, MAX_AUTO)
        self.prefetch = min(self.fitting + self.spare, MAX_PREFETCH)
        if is_enough or self.prefetch != before:
            self.not_before = now + CHANGE_EVERY
        return is_enough


class PrefetchTuner(Service):
    """
    Measures the runs of tasks, and sets the prefetch of each queue in `places` by them; at first it is `first_prefetch`.

    `running` returns what runs now, each with the seconds so far, `is_coroutine` whether a delivery's task runs in the event
    loop, `stuck` how many messages are held that may not run yet, or whose copy the broker does not confirm: they leave no
    place to others, which are held in addition. `set_prefetch` is called with the prefetch of all these queues when one has
    changed. `wake` wakes the main thread.
    """

    def __init__(
        self,
        places: Mapping[str, Places],
        running: Callable[[], Sequence[tuple[Delivery, float]]],
        is_coroutine: Callable[[Delivery], bool],
        stuck: Callable[[], int],
        set_prefetch: Callable[[Mapping[str, int]], None],
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self._queues = {queue: _TunedQueue(one) for queue, one in places.items()}
        self._running = running
        self._is_coroutine = is_coroutine
        self._stuck = stuck
        self._set_prefetch = set_prefetch
        self._wake = wake
        self._samples: deque[tuple[Delivery, float]] = deque()
        self._to_measure = SAMPLES if places else 0
        # At first quick tasks would wait for the broker until the next beat.
        self._has_decided = False

    # ---- in the consumer's I/O thread -------------------------------------------------------------------------------

    def on_settled(self, events: Sequence[Settled]) -> None:
        """Measure some runs: a listener of the settler. A deferred message, which takes as much of the prefetch, is a short one."""
        if self._to_measure > 0:
            runs = [
                (one.delivery, 0.0 if one.run is None else one.at - one.run.started)
                for one in events[: self._to_measure]
                if one.run is not None or isinstance(one.outcome, Deferred)
            ]
            self._samples.extend(runs)
            self._to_measure -= len(runs)
            if self._to_measure <= 0 and not self._has_decided:
                self._wake()

    # ---- in the main thread -----------------------------------------------------------------------------------------

    def beat(self, now: float) -> None:
        """Take what was measured, and set a prefetch that fits, at most once in ten seconds for each queue."""
        while self._samples:
            delivery, seconds = self._samples.popleft()
            if (queue := self._queues.get(delivery.queue)) is not None:
                queue.work = queue.work.plus(seconds, self._is_coroutine(delivery))
        self._to_measure = SAMPLES if self._queues else 0
        due = {name: queue for name, queue in self._queues.items() if now >= queue.not_before}
        if not due:
            return
        work, coroutines = self._work_so_far()
        stuck, before = self._stuck(), self._prefetch()
        for name, queue in due.items():
            self._has_decided |= queue.tune(work[name], coroutines[name], stuck, now)
        if (prefetch := self._prefetch()) != before:
            self._set_prefetch(prefetch)

    def _work_so_far(self) -> tuple[dict[str, Work], Counter[str]]:
        """Return the work of each queue, with what has run for a while and has not ended, and how many coroutines that is."""
        work = {name: queue.work for name, queue in self._queues.items()}
        coroutines: Counter[str] = Counter()
        for delivery, seconds in self._running():
            name = delivery.queue
            if name in work and seconds >= WAITING_SECONDS:
                is_coroutine = self._is_coroutine(delivery)
                work[name] = work[name].plus(seconds, is_coroutine)
                coroutines[name] += is_coroutine
        return work, coroutines

    def _prefetch(self) -> dict[str, int]:
        return {name: queue.prefetch for name, queue in self._queues.items()}
