"""
Which tasks this process did not know lately, and how many messages of them wait: for the log and the status.

Decides what is logged, once per task and minute, and what the supervisor gets. `worker.settle` notes each such message.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping

from amqpworker.ipc.pipes import Report, Reporter
from amqpworker.log.logger import get_logger
from amqpworker.text import cut
from amqpworker.worker.service import Service

log = get_logger(__name__)

LOG_EVERY = 60.0
REPORT_EVERY = 1.0
# Any program may send any name.
MAX_NAMES = 100
MAX_REPORTED = 10
MAX_NAME = 60
OTHERS = "others"
# How exactly it is known when a message is due, per second: one that is counted longer is counted twice once it returns.
PER_SECOND = 8


class UnknownTaskCounts:
    """The messages that this process returned to the delay ladder since it does not know their tasks; any thread uses it."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        # By task: how many of its messages are due in which eighth of a second, when it was logged, and how many came since.
        self._due: dict[str, Counter[int]] = {}
        self._logged: dict[str, float] = {}
        self._unlogged: Counter[str] = Counter()

    def note(self, task: str, queue: str, delay: float, reason: str) -> None:
        """Note that a message of a task is delivered again in `delay` seconds."""
        now = self._monotonic()
        with self._lock:
            name = self._name_of(task, now)
            self._due.setdefault(name, Counter())[math.ceil((now + delay) * PER_SECOND)] += 1
            self._unlogged[name] += 1
            if now < self._logged.get(name, -math.inf) + LOG_EVERY:
                return
            self._logged[name] = now
            messages = self._unlogged.pop(name)
        effect = "they wait for a worker that knows it, ten minutes at most"
        log.warning("task_unknown", task=name, queue=queue, messages=messages, reason=reason, effect=effect)

    def _name_of(self, task: str, now: float) -> str:
        """Return the name to count a task by, after forgetting those of which nothing waits, if there are many."""
        if task in self._due or len(self._due) < MAX_NAMES:
            return task
        waiting = self._waiting(now)
        for name in [name for name in self._due if name not in waiting]:
            del self._due[name]
            self._logged.pop(name, None)
            self._unlogged.pop(name, None)
        return task if len(self._due) < MAX_NAMES else OTHERS

    def waiting(self) -> dict[str, int]:
        """Return how many messages of which task wait that this process has returned; those with the most first."""
        with self._lock:
            return dict(Counter(self._waiting(self._monotonic())).most_common())

    def _waiting(self, now: float) -> dict[str, int]:
        found = {}
        for name, due in self._due.items():
            for moment in [moment for moment in due if moment <= now * PER_SECOND]:
                del due[moment]
            if due:
                found[name] = due.total()
        return found


class UnknownTasksReport(Service):
    """Reports to the supervisor what waits for a worker that knows it, whenever that changes."""

    def __init__(self, counts: UnknownTaskCounts, reporter: Reporter) -> None:
        self._counts = counts
        self._reporter = reporter
        self._reported: Mapping[str, int] = {}
        self._report_at = 0.0

    def beat(self, now: float) -> None:
        """Report it, once per second at most."""
        if now < self._report_at:
            return
        self._report_at = now + REPORT_EVERY
        waiting = shortened(self._counts.waiting())
        if waiting != self._reported and self._reporter.send(Report("unknown_tasks", waiting=waiting)):
            self._reported = waiting


def shortened(waiting: Mapping[str, int]) -> dict[str, int]:
    """Return as many of these numbers as a report has room for, the rest in one."""
    found: Counter[str] = Counter()
    for place, (name, number) in enumerate(waiting.items()):
        found[cut(name, MAX_NAME) if place < MAX_REPORTED else OTHERS] += number
    return dict(found)
