"""
Durations and times that users give, in seconds.

Decides which values are valid: the delay ladder has to hold the longest of them.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from amqpworker.errors import InvalidArguments
from amqpworker.routing.delay import MAX_DELAY

_YEAR = 365.25 * 86400


def duration(value: float | timedelta, what: str) -> float:
    """Return the seconds of the duration in the option `what`; raises InvalidArguments if it is not a valid one."""
    if isinstance(value, timedelta):
        return _within(value.total_seconds(), value, what)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidArguments(f"{what}={value!r}: a duration is a number of seconds or a timedelta.")
    return _within(value, value, what)


def seconds_until(at: datetime, now: float, what: str = "at") -> float:
    """Return the seconds from `now` to the time in the option `what`, 0 if it is past; raises as the others do."""
    seconds = max(0.0, timestamp_of(at, what) - now)
    if seconds > MAX_DELAY:
        latest = datetime.fromtimestamp(now + MAX_DELAY, UTC)
        raise InvalidArguments(
            f"{what} is too late: at most {MAX_DELAY / _YEAR:.1f} years ahead, {latest:%Y-%m-%dT%H:%MZ}."
        )
    return seconds


def timestamp_of(at: datetime, what: str) -> float:
    """Return the time in the option `what`, in seconds since the epoch; raises InvalidArguments if it is not one with a zone."""
    if not isinstance(at, datetime):
        raise InvalidArguments(f"{what}={at!r}: it must be a timezone-aware datetime.")
    try:
        seconds = None if at.utcoffset() is None else at.timestamp()
    except Exception as error:
        # Without the value: its text could raise an error too.
        raise InvalidArguments(f"{what}=…: its time zone raised {type(error).__name__}.") from error
    if seconds is None:
        raise InvalidArguments(f"{what}={at!r} must be timezone-aware.")
    return seconds


def _within(seconds: float, given: object, what: str) -> float:
    if seconds > MAX_DELAY:
        raise InvalidArguments(f"{what} is too long: at most {MAX_DELAY:.0f} seconds, {MAX_DELAY / _YEAR:.1f} years.")
    if not seconds >= 0:
        raise InvalidArguments(f"{what}={given!r}: it must be zero or more seconds.")
    return float(seconds)
