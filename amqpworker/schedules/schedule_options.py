"""
The options of a schedule: which values are valid, and the `Schedule` that they make.

Each error names the schedule and the option.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, get_args

from amqpworker.errors import ConfigError, InvalidArguments
from amqpworker.model.headers import EPOCH, MILLISECOND, time_text
from amqpworker.model.message import MAX_SHORT_BYTES, Message, fits_short_string, plain
from amqpworker.policies.durations import duration, timestamp_of
from amqpworker.policies.send_options import Options
from amqpworker.schedules.cron import Cron
from amqpworker.schedules.definition import Misfire, Overlap, Schedule, Timing
from amqpworker.schedules.interval import Interval
from amqpworker.schedules.window import Window

SHORTEST_PERIOD = 1.0


@dataclass(frozen=True, slots=True)
class ScheduleOptions:
    """The options of a schedule as they were given."""

    cron: str | None = None
    every: float | timedelta | None = None
    tz: str = "UTC"
    start: datetime | None = None
    end: datetime | None = None
    jitter: float | timedelta = 0
    overlap: Overlap = "allow"
    misfire: Misfire = "once"
    grace: float | timedelta = 60


def make_schedule(name: str, message: Message[Any], given: ScheduleOptions) -> Schedule:
    """Return a schedule of this message; raises ConfigError that names the schedule and what is wrong with its options."""
    if not fits_short_string(name) or not name.isprintable():
        raise ConfigError(
            f"Schedule name must be a string of 1 to {MAX_SHORT_BYTES} bytes of UTF-8 without control characters, "
            f"got {name!r:.60}."
        )
    try:
        schedule = Schedule(
            plain(name),
            message,
            _timing(given),
            duration(given.jitter, "jitter"),
            _one_of(get_args(Overlap), given.overlap, "overlap"),
            _one_of(get_args(Misfire), given.misfire, "misfire"),
            duration(given.grace, "grace"),
        )
        _check_expires(message, schedule.jitter)
    except (ConfigError, InvalidArguments) as error:
        raise ConfigError(f"Schedule {name!r}: {str(error).removesuffix('.')}.") from error
    return schedule


def _timing(given: ScheduleOptions) -> Timing:
    start, end = _moment(given.start, "start"), _moment(given.end, "end")
    times = _times(given, start)
    timing = times if start is None else Window(times, start)
    first = timing.after(-1)
    if first is None:
        raise ConfigError(f"cron={given.cron!r}: it does not fire within 50 years")
    if end is None:
        return timing
    if end < first:
        raise ConfigError(f"end={time_text(end)}: it is before the first time, {time_text(first)}")
    return Window(times, start, end)


def _times(given: ScheduleOptions, start: int | None) -> Timing:
    """Return the times of `cron` or `every`, also those before the start and after the end."""
    if given.cron is not None and given.every is not None:
        raise ConfigError("give either cron=… or every=…, not both")
    if not isinstance(given.tz, str):
        raise ConfigError(f"tz={given.tz!r:.60}: it must be the name of a time zone, such as 'Europe/Paris'")
    if given.every is not None:
        if given.tz != "UTC":
            raise ConfigError(f"tz={given.tz!r:.60} has no effect with every=…, which counts elapsed time")
        every = duration(given.every, "every")
        if every < SHORTEST_PERIOD:
            raise ConfigError(f"every={given.every!r}: it must be at least {SHORTEST_PERIOD:g} second")
        return Interval(round(every * 1000), start or 0)
    if given.cron is None:
        raise ConfigError("give cron=… or every=…")
    if not isinstance(given.cron, str):
        raise ConfigError(f"cron={given.cron!r:.60}: it must be a string, such as '30 2 * * *'")
    return Cron(" ".join(given.cron.split()), plain(given.tz))


def _moment(value: datetime | None, what: str) -> int | None:
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise ConfigError(f"{what}={value!r:.60}: it must be a timezone-aware datetime")
    timestamp_of(value, what)
    return (value - EPOCH) // MILLISECOND


def _one_of(allowed: tuple[Any, ...], value: Any, what: str) -> Any:
    if value not in allowed:
        raise ConfigError(f"{what}={value!r:.60}: it must be one of {', '.join(map(repr, allowed))}")
    return plain(value)


def _check_expires(message: Message[Any], jitter: float) -> None:
    if isinstance(message.expires, datetime):
        raise ConfigError("options(expires=…) of a schedule must be a duration: it is counted from each tick")
    if message.expires is not None and message.expires <= jitter:
        raise ConfigError(f"options(expires={message.expires:g}) must be more than the jitter of {jitter:g} s")


def check_scheduled(name: str, options: Options) -> None:
    """Refuse options that each tick of a schedule has its own of."""
    wrong = [each for each in ("id", "delay", "at") if getattr(options, each) is not None]
    if wrong:
        raise ConfigError(f"Schedule {name!r:.60}: options({wrong[0]}=…) cannot be used with a schedule.")
