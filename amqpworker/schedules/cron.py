"""
Times of a cron expression in a time zone.

cronsim reads the expression and decides which days match. Which times these are is decided here, day by day: it depends on the
definition alone, not on where the calculation begins. If neither minute nor hour begins with `*`, a time in the gap of a
clock change is the end of the gap, and one in a repeated hour is the first of the two. Otherwise each minute that the clock
shows counts: none in a gap, both in a repeated hour.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import cache, lru_cache
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, available_timezones

from amqpworker.errors import ConfigError
from amqpworker.model.headers import EPOCH, MILLISECOND
from amqpworker.text import did_you_mean

if TYPE_CHECKING:
    from cronsim import CronSim

FIELDS = "minute, hour, day of month, month, day of week"

_MINUTE = 60_000
_DAY = 86_400_000
_FIRST_DAY = EPOCH.toordinal()
# Times are those from 1970 to here.
_END = (datetime(9000, 1, 1, tzinfo=UTC) - EPOCH) // MILLISECOND
# 29 February is a Monday again after at most 40 years.
_SEARCHED_DAYS = 50 * 366
# By how many days the date in a zone can differ from the one in UTC, and one for an hour that is repeated at midnight.
_MARGIN = 2
# Another zone on each machine: other hosts would send other ticks.
_OF_THE_MACHINE = {"localtime", "posixrules"}


@dataclass(frozen=True, slots=True)
class Cron:
    """The times of a cron expression of five fields in a time zone; raises ConfigError if one of them is not valid."""

    expression: str
    zone: str = "UTC"
    _fields: _Fields = field(init=False, repr=False, compare=False)
    _clock: tzinfo = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_fields", _parsed(self.expression))
        object.__setattr__(self, "_clock", time_zone(self.zone))

    def __str__(self) -> str:
        return f"{self.expression} {self.zone}"

    def after(self, moment: int) -> int | None:
        """Return the first time after `moment`, None if there is none in the next 50 years."""
        moment = max(moment, -1)
        if moment >= _END:
            return None
        for day in self._fields.days(_day_of(moment) - _MARGIN, 1):
            if (found := self._first(day, moment)) is not None:
                # If midnight is repeated, the times of two days are mixed.
                other = self._first(day + 1, moment)
                return found if other is None else min(found, other)
        return None

    def latest(self, moment: int) -> int | None:
        """Return the last time that is not after `moment`, None if there is none in the last 50 years, or since 1970."""
        moment = min(moment, _END)
        if moment < 0:
            return None
        for day in self._fields.days(_day_of(moment) + _MARGIN, -1):
            if (found := self._last(day, moment)) is not None:
                other = self._last(day - 1, moment)
                found = found if other is None else max(found, other)
                return found if found >= 0 else None
        return None

    def count(self, since: int, until: int) -> int:
        """Return how many times are after `since` and not after `until`, in 50 years at most."""
        since, until = min(max(since, -1), _END), min(until, _END)
        first, last = _day_of(since), _day_of(until)
        total = 0
        for day in self._fields.days(first - _MARGIN, 1):
            if day > last + _MARGIN:
                break
            start, times = self._times(day)
            if first + _MARGIN < day < last - _MARGIN:
                total += len(times)
            else:
                total += max(0, bisect_right(times, until - start) - bisect_right(times, since - start))
        return total

    def _first(self, day: int, moment: int) -> int | None:
        """Return the first time of a day that is after `moment`."""
        start, times = self._times(day)
        index = bisect_right(times, moment - start)
        return start + times[index] if index < len(times) else None

    def _last(self, day: int, moment: int) -> int | None:
        """Return the last time of a day that is not after `moment`."""
        start, times = self._times(day)
        index = bisect_right(times, moment - start)
        return start + times[index - 1] if index else None

    def _times(self, day: int) -> tuple[int, tuple[int, ...]]:
        """Return the times of a day, in ascending order: each is the sum of the returned number and one of the others."""
        fields = self._fields
        if not fields.match(date.fromordinal(day)):
            return 0, ()
        start = _start_of_plain_day(self._clock, day)
        if start is not None:
            return start, fields.times_of_day
        return 0, _times_of_switch_day(fields.times_of_day, fields.follow_clock, self._clock, day)


@dataclass(frozen=True, slots=True)
class _Fields:
    """
    An expression that was read: `times_of_day` are milliseconds after midnight.

    If they `follow_clock`, none is moved or left out at a change of the clock.
    """

    sim: CronSim
    times_of_day: tuple[int, ...]
    follow_clock: bool

    def match(self, day: date) -> bool:
        """Return whether there are times on this day."""
        return day.month in self.sim.months and self.sim.match_day(day)

    def days(self, first: int, step: int) -> Iterator[int]:
        """Yield days from `first` on, forward or backward, without the months that do not match."""
        day, end = first, first + step * _SEARCHED_DAYS
        while day * step < end * step:
            at = date.fromordinal(day)
            if at.month in self.sim.months:
                yield day
                day += step
            elif step > 0:
                day = (at.replace(day=1) + timedelta(days=32)).replace(day=1).toordinal()
            else:
                day = at.replace(day=1).toordinal() - 1


@cache
def _parsed(expression: str) -> _Fields:
    """Return an expression that was read; schedules of one expression share it."""
    try:
        from cronsim import CronSim, CronSimError
    except ImportError:
        raise ConfigError(
            f"cron={expression!r:.60} needs cronsim: install it with pip install 'amqpworker[schedules]'."
        ) from None
    parts = expression.split()
    if len(parts) != len(FIELDS.split(", ")):
        raise ConfigError(
            f"cron={expression!r:.60}: it must have five fields ({FIELDS}), such as '30 2 * * *', and has {len(parts)}."
        )
    try:
        # Only the expression is read; the times that cronsim would calculate from here are not used.
        sim = CronSim(expression, datetime(2000, 1, 1, tzinfo=UTC))
    except (CronSimError, ValueError, AssertionError) as error:
        raise ConfigError(f"cron={expression!r:.60}: {_mistake(str(error))}.") from None
    times = _times_of_day(frozenset(sim.hours), frozenset(sim.minutes))
    return _Fields(sim, times, follow_clock=parts[0].startswith("*") or parts[1].startswith("*"))


def _mistake(text: str) -> str:
    field_name = text.removeprefix("Bad ")
    if field_name == text:
        return "it is not valid"
    # cronsim reports 30 February, which never fires, as "Bad day-of-month" too.
    never = ", or it never fires" if field_name == "day-of-month" else ""
    return f"the field for the {field_name} is not valid{never}"


@cache
def _times_of_day(hours: frozenset[int], minutes: frozenset[int]) -> tuple[int, ...]:
    return tuple((hour * 60 + minute) * _MINUTE for hour in sorted(hours) for minute in sorted(minutes))


@cache
def time_zone(name: str) -> tzinfo:
    """Return a time zone; raises ConfigError if it does not exist."""
    if name == "UTC":
        return UTC
    try:
        if name not in _OF_THE_MACHINE:
            return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        pass
    zones = available_timezones() - _OF_THE_MACHINE
    if not zones:
        raise ConfigError(f"tz={name!r:.60}: this machine has no time zones: install the package tzdata.")
    raise ConfigError(f"tz={name!r:.60}: unknown time zone{did_you_mean(name, zones)}.")


def _day_of(moment: int) -> int:
    return _FIRST_DAY + moment // _DAY


def _utc(day: int, minute: int, clock: tzinfo, fold: int = 0) -> int:
    """Return when a clock shows this minute of a day; `fold=1` is the second time in an hour that is repeated."""
    local = datetime.fromordinal(day) + timedelta(minutes=minute)
    return (local.replace(tzinfo=clock, fold=fold) - EPOCH) // MILLISECOND


@lru_cache(maxsize=4096)
def _start_of_plain_day(clock: tzinfo, day: int) -> int | None:
    """Return when a day begins, None if the clock changes on it or at its ends."""
    start, end = _utc(day, 0, clock), _utc(day + 1, 0, clock)
    is_plain = end - start == _DAY and start == _utc(day, 0, clock, 1) and end == _utc(day + 1, 0, clock, 1)
    return start if is_plain else None


@lru_cache(maxsize=1024)
def _times_of_switch_day(times: tuple[int, ...], follow_clock: bool, clock: tzinfo, day: int) -> tuple[int, ...]:
    """Return the times of a day on which the clock changes, in ascending order."""
    once, as_shown = _minutes_of_switch_day(clock, day)
    moments = as_shown if follow_clock else once
    return tuple(sorted({moment for time in times for moment in moments[time // _MINUTE]}))


@lru_cache(maxsize=64)
def _minutes_of_switch_day(clock: tzinfo, day: int) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Return the moments of each minute of a day: one each, and as many as the clock shows it."""
    once: list[tuple[int, ...]] = []
    as_shown: list[tuple[int, ...]] = []
    for minute in range(_DAY // _MINUTE):
        first, second = _utc(day, minute, clock), _utc(day, minute, clock, 1)
        if first > second:  # in a gap
            once.append((_end_of_gap(clock, second, first),))
            as_shown.append(())
        else:
            once.append((first,))
            as_shown.append((first,) if first == second else (first, second))
    return once, as_shown


def _end_of_gap(clock: tzinfo, before: int, after: int) -> int:
    """Return when a clock changed, between two moments."""
    offset = _offset(clock, after)
    while after - before > 1:
        middle = (before + after) // 2
        before, after = (before, middle) if _offset(clock, middle) == offset else (middle, after)
    return after


def _offset(clock: tzinfo, moment: int) -> timedelta | None:
    return (EPOCH + moment * MILLISECOND).astimezone(clock).utcoffset()
