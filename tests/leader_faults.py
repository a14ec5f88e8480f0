"""What is done to schedulers for a while: the one that leads is killed or frozen, every three seconds."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.schedulers import (
    PATIENCE,
    SECOND,
    Scheduler,
    Schedulers,
    Ticks,
    Verdict,
    judge,
    now,
    schedulers,
    starts_from,
)
from tests.support import wait_until

SCHEDULES = 200
EVERY = 3.0
STANDBYS = 2
FREEZES = (1.0, 4.0, 9.0)
"""Within one heartbeat of two seconds, about as long as the broker waits for it, and longer."""


@dataclass(frozen=True)
class Disturbed:
    """How a run ended."""

    counts: Counter[str]
    verdict: Verdict


@dataclass
class LeaderFaults:
    """Kills and freezes leaders; those that are frozen wake up some time."""

    running: Schedulers
    chosen: random.Random
    counts: Counter[str] = field(default_factory=Counter)
    frozen: dict[Scheduler, float] = field(default_factory=dict)

    def disturb(self, seconds: float) -> None:
        """Do it for that long."""
        end = time.monotonic() + seconds
        next_at = 0.0
        while time.monotonic() < end:
            due = partial(self.next_leader, next_at)
            wait_until(lambda due=due: time.monotonic() >= end or due(), seconds + PATIENCE)  # type: ignore[misc]
            if (leader := due()) is not None:
                next_at = time.monotonic() + EVERY
                self.one_fault(leader)
                self.replenish()
        self.wake(float("inf"))

    def next_leader(self, next_at: float) -> Scheduler | None:
        """Wake those whose time has come; return what leads, None if nothing does or the next fault is not due."""
        self.wake(time.monotonic())
        leaders = [one for one in self.running.running if one not in self.frozen and one.leads]
        return leaders[-1] if leaders and time.monotonic() >= next_at else None

    def one_fault(self, leader: Scheduler) -> None:
        """Kill and freeze what leads, in turn."""
        if self.counts["frozen"] < self.counts["killed"]:
            self.counts["frozen"] += 1
            self.frozen[leader] = time.monotonic() + self.chosen.choice(FREEZES)
            leader.signal(signal.SIGSTOP)
        else:
            self.counts["killed"] += 1
            self.running.kill(leader)

    def replenish(self) -> None:
        """Start another, or end one that has woken up if there are many."""
        awake = [one for one in self.running.running if one not in self.frozen]
        if len(awake) <= STANDBYS:
            self.running.start()
            return
        spare = next((one for one in awake if not one.leads), None)
        if spare is not None and len(awake) > STANDBYS + 1:
            spare.stop()
            self.running.running.remove(spare)

    def wake(self, until: float) -> None:
        """Wake those whose time has come."""
        for one in [one for one, at in self.frozen.items() if at <= until]:
            del self.frozen[one]
            one.signal(signal.SIGCONT)


def kill_and_freeze_leaders(folder: Path, url: str, seconds: float) -> Disturbed:
    """Kill or freeze the leader every three seconds, over 200 schedules of one second, and judge what arrived."""
    with ExitStack() as stack:
        running = stack.enter_context(schedulers(folder, url, count=SCHEDULES))
        arriving = stack.enter_context(Ticks(url))
        since = starts_from(running.start())
        for _ in range(STANDBYS):
            running.start().wait_for("scheduler_standby", timeout=60)
        arriving.wait_for_more(SCHEDULES)
        faults = LeaderFaults(running, random.Random(20261130))
        faults.disturb(seconds)
        until = now() + SECOND
        arriving.wait_for_time(until, SCHEDULES)
        return Disturbed(faults.counts, judge(arriving.arrived(), SCHEDULES, since, until))
