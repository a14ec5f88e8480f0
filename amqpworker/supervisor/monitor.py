"""
A supervisor's look at its processes, once in a second: what they record, and whether they are sound.

Decides when it looks, and that nobody has stalled while the supervisor stood still itself. What counts as stalled is
`stall_check`'s, and what is done about it `fleet`'s.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from amqpworker.ipc.idle_queues import elsewhere
from amqpworker.ipc.recorder import MAIN, Recording
from amqpworker.supervisor.fleet import Fleet
from amqpworker.supervisor.fleet_events import ClockGap, Event, OverLimit, Oversize, RecyclingDue, Stalled
from amqpworker.supervisor.pools import PoolSpec
from amqpworker.supervisor.slots import Process, Stage
from amqpworker.supervisor.stall_check import MIB, Sample, overdue, recycling_due, stalled
from amqpworker.supervisor.status import Past, Seen, SupervisorStatus, overview
from amqpworker.supervisor.worker_process import Child

__all__ = ["Monitor"]

LOOK = 1.0
# Whoever has not looked for so long was stopped itself: its processes may have been, too.
GAP = 5.0
# What a process recorded longer ago may be untrue by now.
STALE = 3.0


class Monitor:
    """
    What was seen of the processes, and when they are looked at next (`due`, monotonic).

    `latest` is how all of them stood at the last look, `past` what is remembered of those that are gone.
    """

    def __init__(self, pools: Mapping[str, PoolSpec], now: float) -> None:
        self._pools = pools
        self.due = self._looked = now
        self._lenient_until = 0.0
        self._seen: dict[int, Seen] = {}
        # Those that were below their limit of memory while they consumed.
        self._fit: set[int] = set()
        self.past = Past(apps={name: str(pool.options.get("app", "")) for name, pool in pools.items()})
        self.latest: SupervisorStatus | None = None

    def hasten(self) -> None:
        """Have the next look at once."""
        self.due = 0.0

    def look(self, fleet: Fleet, children: Mapping[int, Child], now: float) -> list[Event]:
        """Look at every process, and return what is wrong with which."""
        events: list[Event] = []
        if now - self._looked > GAP:
            self._lenient_until = now + max(pool.stall_timeout for pool in self._pools.values())
            events.append(ClockGap(now - self._looked))
        self._looked, self.due = now, now + LOOK
        for serial, child in children.items():
            process = fleet.processes.get(serial)
            seen = self._seen[serial] = self._seen_of(process, child, now)
            if process is not None:
                events += self._judged(process, seen, now)
        for serial, bits in elsewhere({serial: self._idle(fleet, serial, now) for serial in children}).items():
            children[serial].note_elsewhere(bits)
        return events

    def _idle(self, fleet: Fleet, serial: int, now: float) -> int:
        """Return for which queues a process is idle: for none unless it consumes and its record is fresh."""
        process, recording = fleet.processes.get(serial), self._seen[serial].recording
        if process is None or not process.consumes or recording is None or now - recording.hearts[MAIN] > STALE:
            return 0
        return recording.idle

    def _seen_of(self, process: Process | None, child: Child, now: float) -> Seen:
        recording = child.recording()
        what = ""
        if process is not None and process.drain_timeout is not None:  # else it has not begun to record
            timeout = self._pools[process.place.pool].stall_timeout
            what = "what it records cannot be read" if recording is None else stalled(recording, now, timeout)
        return Seen(child.pid, child.resident(), recording, what, child.waits)

    def _judged(self, process: Process, seen: Seen, now: float) -> Iterator[Event]:
        if seen.stalled and now >= self._lenient_until:
            yield Stalled(process.serial, seen.stalled)
        if seen.recording is not None and process.stage is Stage.CONSUMING:
            limits = self._pools[process.place.pool].recycling
            oversize = self._oversize(process.serial, seen.memory, limits.memory)
            sample = Sample(now - process.started, seen.recording.counts.settled, seen.memory)
            if reason := recycling_due(limits, sample):
                yield RecyclingDue(process.serial, reason, oversize)
            if overdue(seen.recording, time.time()):
                yield OverLimit(process.serial)

    def _oversize(self, serial: int, memory: int, limit: int | None) -> Oversize | None:
        """Return by how much a process that consumes is too large, None if it is not."""
        if limit is None or memory < limit:
            self._fit.add(serial)
            return None
        return Oversize(memory // MIB, limit // MIB, serial not in self._fit)

    def sum_up(self, fleet: Fleet, now: float) -> SupervisorStatus:
        """Return how all of them stand, by what was seen last; `now` is monotonic."""
        self.latest = overview(fleet, self._seen, self.past, (time.time(), now))
        return self.latest

    def note_death(self, serial: int, recording: Recording | None) -> None:
        """Remember what a process has done that is gone."""
        if recording is not None:
            self.past.counts = self.past.counts.plus(recording.counts)
        self._seen.pop(serial, None)
        self._fit.discard(serial)
