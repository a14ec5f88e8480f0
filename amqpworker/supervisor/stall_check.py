"""
Whether a worker process is sound, by what it has recorded and what the machine says of it.

Pure: decides when a process has stalled or has a task that does not end, and when it has run for long enough or has grown too
large.
"""

from __future__ import annotations

from dataclasses import dataclass

from amqpworker.ipc.recorder import HEARTS, Recording
from amqpworker.ipc.report import OVERDUE
from amqpworker.supervisor.pools import Recycling

__all__ = ["MIB", "Sample", "overdue", "recycling_due", "stalled"]

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Sample:
    """A process as it is now: for how many seconds it has run, how many deliveries it has settled, bytes of memory."""

    age: float
    tasks: int
    memory: int


def stalled(recording: Recording, now: float, timeout: float) -> str:
    """Return which of a process's threads has not moved for `timeout` seconds, "" where all do."""
    for name, heart in zip(HEARTS, recording.hearts, strict=True):
        if heart and now - heart > timeout:
            return f"its {name} has not moved for {now - heart:.0f} s"
    return ""


def overdue(recording: Recording, now: float) -> bool:
    """Return whether a task of a process runs far beyond its time limit; `now` is seconds since the epoch."""
    return any(one.limit and now - one.limit >= OVERDUE for one in recording.running)


def recycling_due(limits: Recycling, sample: Sample) -> str:
    """Return why a process is to be replaced by a fresh one, "" where it is not."""
    if limits.tasks is not None and sample.tasks >= limits.tasks:
        return f"it has run {sample.tasks} tasks"
    if limits.seconds is not None and sample.age >= limits.seconds:
        return f"it has run for {sample.age:.0f} s"
    if limits.memory is not None and sample.memory >= limits.memory:
        return f"it holds {sample.memory // MIB} MiB of memory"
    return ""
