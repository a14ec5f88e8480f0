"""Scheduler processes without a supervisor, each observed by its log, on the schedules of `sides/scheduled_tasks.py`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from amqpworker.ipc.interpreter import VERSION_ARGUMENT
from amqpworker.scheduler.scheduler_options import SchedulerOptions

from bench.places import OWN_PYTHON, running
from bench.watched import Watched

APP = "bench.sides.scheduled_tasks:app"
HEARTBEAT = 2
"""Seconds: a dead connection is noticed after two or three of them."""
DISTANCE = 0.01
"""Seconds between ticks, with schedules that fire often."""


def often() -> dict[str, str]:
    """Return the environment of 200 schedules that fire every 2 s, one after the other: a tick is due every 10 ms."""
    return {"BENCH_TIMING": "spread", "BENCH_COUNT": "200", "BENCH_PERIOD": str(200 * DISTANCE)}


class Scheduler(Watched):
    """A scheduler process."""

    def led_since(self, moment: float = 0.0) -> float | None:
        """Return when it began to lead, the first time after a moment; seconds since the epoch."""
        return next((began for began in self._times("scheduler_leading") if began > moment), None)

    def _times(self, event: str) -> list[float]:
        return [datetime.fromisoformat(line["timestamp"]).timestamp() for line in self.events(event)]


@contextmanager
def scheduler(url: str, log: Path, environment: dict[str, str], heartbeat: int = HEARTBEAT) -> Iterator[Scheduler]:
    """Run a scheduler process for the time of a block."""
    options = SchedulerOptions(app=APP, log_json=True).model_dump_json()
    settings = {"AMQPWORKER_URL": url, "AMQPWORKER_HEARTBEAT": str(heartbeat)}
    command = [OWN_PYTHON, "-m", "amqpworker.scheduler", VERSION_ARGUMENT, options]
    with running([command], {**settings, **environment}, log) as processes:
        yield Scheduler(processes)
