"""The next times of schedules, in UTC and in the time zone of each, for `amqpworker schedule next`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from itertools import islice
from typing import Any

from amqpworker.cli.output import console, folded, table
from amqpworker.cli.schedule_listing import in_utc
from amqpworker.model.headers import EPOCH, LATEST, MILLISECOND, time_text
from amqpworker.schedules.cron import Cron, time_zone
from amqpworker.schedules.definition import Schedule, Timing
from amqpworker.schedules.window import Window

DAY = 86_400_000


@dataclass(frozen=True, slots=True)
class NextTime:
    """One time of a schedule, and the same in its time zone."""

    schedule: str
    moment: int
    local: datetime

    def as_json(self) -> dict[str, Any]:
        """Return it as an object of JSON's types, the time as the wire has it."""
        return {"schedule": self.schedule, "time": time_text(self.moment), "local": self.local_text("T")}

    def local_text(self, separator: str = " ") -> str:
        """Return the local time, with milliseconds only if it has some."""
        precision = "milliseconds" if self.moment % 1000 else "seconds"
        return self.local.isoformat(separator, precision)


def next_times(schedules: Iterable[Schedule], now: int, count: int) -> list[NextTime]:
    """Return the first `count` times of each schedule that are after `now`, all in their order."""
    times = [time for schedule in schedules for time in islice(_times(schedule, now), count)]
    return sorted(times, key=lambda time: time.moment)


def _times(schedule: Schedule, now: int) -> Iterator[NextTime]:
    zone = _zone(schedule.timing)
    moment = schedule.timing.after(now)
    # a local time may be a day later, and there is none after the year 9999
    while moment is not None and moment < LATEST - DAY:
        yield NextTime(schedule.name, moment, (EPOCH + moment * MILLISECOND).astimezone(zone))
        moment = schedule.timing.after(moment)


def _zone(timing: Timing) -> tzinfo:
    if isinstance(timing, Window):
        timing = timing.timing
    return time_zone(timing.zone) if isinstance(timing, Cron) else UTC


def show_times(times: Iterable[NextTime]) -> None:
    """Print times as a table."""
    shown = table("UTC", "in the schedule's zone", "schedule")
    for time in times:
        shown.add_row(in_utc(time.moment), time.local_text(), folded(time.schedule))
    console().print(shown)
