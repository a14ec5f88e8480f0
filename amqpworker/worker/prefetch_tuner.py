"""
Adapt how many messages a process holds of each queue, for `--prefetch auto`.

Decides which runs are measured, and when another prefetch is asked for; `prefetch_size` decides which one.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence

from amqpworker.hooks import Settled
from amqpworker.model.message import Delivery
from amqpworker.model.outcome import Deferred
from amqpworker.worker.options import MAX_PREFETCH
from amqpworker.worker.prefetch_size import MAX_AUTO, WAITING_SECONDS, Places, Work, fitting_prefetch
from amqpworker.worker.service import Service

CHANGE_EVERY = 10.0
# Runs that are measured between two beats: all of them if there are few; else some are enough for their average.
SAMPLES = 64


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
        self._places = places
        self._running = running
        self._is_coroutine = is_coroutine
        self._stuck = stuck
        self._set_prefetch = set_prefetch
        self._wake = wake
        # The number that fits the work, and the one that was set.
        self._fitting = {queue: one.first_prefetch for queue, one in places.items()}
        self._prefetch = dict(self._fitting)
        # For how many stuck messages there are places in addition: coarse, since each change delivers a whole prefetch anew.
        self._spare = dict.fromkeys(places, 0)
        self._work = dict.fromkeys(places, Work())
        self._not_before = dict.fromkeys(places, 0.0)
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
            self._add(self._work, *self._samples.popleft())
        self._to_measure = SAMPLES if self._places else 0
        due = [queue for queue, moment in self._not_before.items() if now >= moment]
        if not due:
            return
        running = [(one, seconds) for one, seconds in self._running() if seconds >= WAITING_SECONDS]
        work, stuck = self._with(running), self._stuck()
        coroutines = Counter(one.queue for one, _ in running if self._is_coroutine(one))
        before = dict(self._prefetch)
        for queue in due:
            # Nothing more can arrive while coroutines fill the prefetch, although others could run beside them.
            is_enough = work[queue].is_enough(self._places[queue]) or coroutines[queue] >= self._prefetch[queue]
            if is_enough:
                self._fit(queue, work[queue])
            self._make_room(queue, stuck)
            if is_enough or self._prefetch[queue] != before[queue]:
                self._not_before[queue] = now + CHANGE_EVERY
        if self._prefetch != before:
            self._set_prefetch(dict(self._prefetch))

    def _fit(self, queue: str, work: Work) -> None:
        """Decide which number fits the work of a queue."""
        self._fitting[queue] = fitting_prefetch(work, self._places[queue], self._fitting[queue])
        self._work[queue] = self._work[queue].halved()
        self._has_decided = True

    def _make_room(self, queue: str, stuck: int) -> None:
        """Set the number that fits, and a place for each stuck message."""
        if not self._spare[queue] / 2 <= stuck <= self._spare[queue]:
            self._spare[queue] = min(stuck, MAX_AUTO)
        self._prefetch[queue] = min(self._fitting[queue] + self._spare[queue], MAX_PREFETCH)

    def _with(self, running: Sequence[tuple[Delivery, float]]) -> dict[str, Work]:
        """Return the work so far, with what has run for a while and has not ended."""
        work = dict(self._work)
        for delivery, seconds in running:
            self._add(work, delivery, seconds)
        return work

    def _add(self, work: dict[str, Work], delivery: Delivery, seconds: float) -> None:
        if delivery.queue in work:
            work[delivery.queue] = work[delivery.queue].plus(seconds, self._is_coroutine(delivery))
