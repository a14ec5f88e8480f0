"""What the leader replies to `amqpworker schedule list` about each of its schedules."""

from __future__ import annotations

from typing import Any

from amqpworker.model.headers import time_text
from amqpworker.scheduler.agenda import Entry, Stage
from amqpworker.scheduler.ticks import Ticks


def list_of(ticks: Ticks) -> list[dict[str, Any]]:
    """Return a row for each schedule, in the order of their names; times are text, None if there is none."""
    lagging = ticks.lagging()
    return [_row(ticks.entries[name], ticks, lagging.get(name)) for name in sorted(ticks.entries)]


def _row(entry: Entry, ticks: Ticks, lagging: int | None) -> dict[str, Any]:
    schedule = entry.schedule
    last = entry.last
    if last is None and entry.stage in {Stage.WAITING, Stage.PAUSED, Stage.ENDED}:
        # before this scheduler led
        last = schedule.timing.latest(ticks.paused.get(entry.name, ticks.until if lagging is None else lagging))
    return {
        "name": entry.name,
        "task": schedule.message.task,
        "queue": schedule.message.queue,
        "timing": str(schedule.timing),
        "last": _text(last),
        "next": _text(entry.next if entry.stage is Stage.WAITING else None),
        "paused": _text(ticks.paused.get(entry.name)),
        "lagging": _text(lagging),
        "missed": entry.missed,
        "last_missed": _text(entry.last_missed),
        "skipped": entry.skipped,
    }


def _text(time: int | None) -> str | None:
    return None if time is None else time_text(time)
