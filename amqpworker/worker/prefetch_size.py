"""
How many messages of a queue a process holds with `--prefetch auto`, by how long its tasks have run.

Pure. Decides the number, and whether another one is worth a change: as many as run at full load, and about a quarter of a
second of work that waits.
"""

from __future__ import annotations

from dataclasses import dataclass

WAITING_SECONDS = 0.25
MAX_AUTO = 512
# Fewer runs show too little, and so do fewer than there are threads.
MIN_RUNS = 8
# The first runs may differ from all others: a number grows to this many times the runs that were measured.
MAX_PER_RUN = 8
# A longer run, or a clock that was set, counts as this long; nothing waits behind such runs anyway.
LONGEST_RUN = 60.0


@dataclass(frozen=True, slots=True)
class Places:
    """
    How many tasks of a queue can run at once: in `threads`, and as `coroutines` in the event loop.

    If it has `only_coroutines`, all of these can run at once whatever the threads do.
    """

    threads: int
    coroutines: int = 0
    only_coroutines: bool = False

    @property
    def first_prefetch(self) -> int:
        """The prefetch before a run was measured: no message waits for another one that runs."""
        return max(self.threads, self.coroutines) if self.only_coroutines else self.threads


@dataclass(frozen=True, slots=True)
class Work:
    """Runs of the tasks of one queue: how many, and the seconds that they took together in threads and in the event loop."""

    runs: float = 0.0
    in_threads: float = 0.0
    in_event_loop: float = 0.0

    def plus(self, seconds: float, is_coroutine: bool) -> Work:
        """Return this work and one more run."""
        seconds = min(max(0.0, seconds), LONGEST_RUN)
        if is_coroutine:
            return Work(self.runs + 1, self.in_threads, self.in_event_loop + seconds)
        return Work(self.runs + 1, self.in_threads + seconds, self.in_event_loop)

    def halved(self) -> Work:
        """Return the same work with half the weight, for what follows to count more."""
        return Work(self.runs / 2, self.in_threads / 2, self.in_event_loop / 2)

    def is_enough(self, places: Places) -> bool:
        """Return whether these are enough runs to decide by."""
        return self.runs >= max(MIN_RUNS, places.threads)


def fitting_prefetch(work: Work, places: Places, present: int) -> int:
    """
    Return the prefetch that fits this work, `present` if another one is not worth a change.

    It is at least one per thread, and at most 512, or as many as can run at once if these are more.
    """
    most = max(MAX_AUTO, places.threads + places.coroutines)
    # How long these runs take with all threads in use, or all coroutines, whichever takes longer.
    busy = max(work.in_threads / places.threads, work.in_event_loop / max(1, places.coroutines))
    # By Little's law: what runs at that rate, and what begins in the next quarter of a second.
    held = work.in_threads + work.in_event_loop + WAITING_SECONDS * work.runs
    wanted = most if held >= busy * most else int(held / busy + 1e-9)
    wanted = max(places.threads, min(wanted, max(present, int(work.runs * MAX_PER_RUN))))
    return wanted if _is_worth_it(wanted, present, places.threads) else present


def _is_worth_it(wanted: int, present: int, least: int) -> bool:
    """Return whether a prefetch differs by more than a quarter, or lets nothing wait any more."""
    return wanted == least or abs(wanted - present) * 4 > present
