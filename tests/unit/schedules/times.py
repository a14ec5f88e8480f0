"""Times as the tests of schedules write them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from zoneinfo import ZoneInfo

from amqpworker.model.headers import EPOCH, MILLISECOND
from amqpworker.schedules.definition import Timing

MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR


def utc(text: str) -> int:
    """Return a time without a zone, such as `2026-03-29T00:30`, in UTC."""
    return (datetime.fromisoformat(f"{text}+00:00") - EPOCH) // MILLISECOND


def shown(moments: list[int], zone: str) -> list[str]:
    """Return what a clock in this zone shows at these moments: date, time and distance from UTC."""
    clock = ZoneInfo(zone)
    return [(EPOCH + moment * MILLISECOND).astimezone(clock).strftime("%m-%d %H:%M %z") for moment in moments]


def times(timing: Timing, since: int, until: int) -> Iterator[int]:
    """Yield the times after `since` and not after `until`."""
    moment: int | None = since
    while (moment := timing.after(moment)) is not None and moment <= until:
        yield moment
