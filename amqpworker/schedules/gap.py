"""Which ticks are sent after a gap: while no scheduler led, or its leader could not send."""

from __future__ import annotations

from dataclasses import dataclass

from amqpworker.schedules.definition import Schedule, Timing

MAX_MADE_UP = 1000
"""How many ticks of one schedule are sent at once after a gap; with the misfire "all" those before them are missed."""


@dataclass(frozen=True, slots=True)
class DueTicks:
    """
    The nominal times of ticks to send, in ascending order, and how many ticks are missed because of the misfire option.

    `last_missed` is the last of the missed ones. Once `ticks` are sent, nothing up to `position` is due any more. It is before
    now if more than MAX_MADE_UP ticks are due after a gap of at most the grace: the others follow at once.
    """

    ticks: tuple[int, ...]
    missed: int
    last_missed: int | None
    position: int


def due_ticks(schedule: Schedule, position: int, now: int) -> DueTicks:
    """Return what is due after `position` up to `now`; nothing if `now` is before it."""
    timing = schedule.timing
    first = timing.after(position)
    if first is None or first > now:
        return DueTicks((), 0, None, max(position, now))
    if now - first <= schedule.grace * 1000:
        return _all_since(timing, first, now)
    match schedule.misfire:
        case "once":
            ticks = _latest(timing, position, now, 1)
        case "all":
            ticks = _latest(timing, position, now, MAX_MADE_UP)
        case "skip":
            ticks = ()
    missed_until = ticks[0] - 1 if ticks else now
    missed = timing.count(position, missed_until)
    return DueTicks(ticks, missed, timing.latest(missed_until) if missed else None, now)


def _all_since(timing: Timing, first: int, now: int) -> DueTicks:
    ticks = [first]
    while (following := timing.after(ticks[-1])) is not None and following <= now:
        if len(ticks) == MAX_MADE_UP:
            return DueTicks(tuple(ticks), 0, None, ticks[-1])
        ticks.append(following)
    return DueTicks(tuple(ticks), 0, None, now)


def _latest(timing: Timing, position: int, now: int, limit: int) -> tuple[int, ...]:
    """Return the latest times after `position` and not after `now`, at most `limit`, in ascending order."""
    ticks: list[int] = []
    found = timing.latest(now)
    while found is not None and found > position and len(ticks) < limit:
        ticks.append(found)
        found = timing.latest(found - 1)
    return tuple(reversed(ticks))
