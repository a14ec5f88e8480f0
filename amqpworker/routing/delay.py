"""
The route of a delayed message: the arithmetic of the delay ladder.

A delay is a whole number of units, and each of its bits is the wait in one level (see `topology.ladder`). Decides
where a message enters the ladder and with which headers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from amqpworker.errors import InvalidArguments
from amqpworker.model.headers import wait_header
from amqpworker.routing.topology import LEVELS, UNIT, Names

MAX_DELAY = (2**LEVELS - 1) * UNIT
"""The longest delay of the ladder in seconds: 8.5 years."""

_TOLERANCE = 1e-6
_YEAR = 365.25 * 86400


@dataclass(frozen=True, slots=True)
class Route:
    """Where to publish a message, and its headers for the levels of the ladder."""

    exchange: str
    routing_key: str
    headers: dict[str, bool]


def route(names: Names, queue: str, delay: float, *, via_due: bool = False) -> Route:
    """
    Return the route to `queue` that takes `delay` seconds, rounded up to whole units.

    Without a delay it is the exchange for new messages; with `via_due` the one for messages that were accepted before.

    Raises:
        InvalidArguments: the delay is negative, or too long for the ladder.
    """
    bits = units(delay)
    if not bits:
        return Route(names.due if via_due else names.tasks, queue, {})
    top = bits.bit_length() - 1
    # The broker only checks whether a header is present; `true` is readable in its UI and takes one byte.
    headers: dict[str, bool] = {wait_header(level): True for level in range(top, -1, -1) if bits >> level & 1}
    return Route(names.level(top), queue, headers)


def units(delay: float) -> int:
    """
    Return the number of units of a delay, rounded up.

    If it is at most 1 µs more than a whole number of units, it is rounded down: floats are not more exact (the difference
    of two times since the epoch is exact to 0.2 µs). So no message is more than 1 µs early.

    Raises:
        InvalidArguments: the delay is negative, or too long for the ladder.
    """
    if not 0 <= delay <= MAX_DELAY:
        raise InvalidArguments(f"delay={delay!r}: a delay is from 0 to {MAX_DELAY:.0f} seconds.")
    # Exact, since the unit is a power of two; so is the difference below, of two floats so close to each other.
    count = math.ceil(delay / UNIT)
    if count and delay - (count - 1) * UNIT <= _TOLERANCE:
        return count - 1
    return count


def seconds_of(value: float | timedelta, what: str) -> float:
    """
    Return the duration in the option `what`, in seconds.

    Raises:
        InvalidArguments: it is not a duration, negative, or too long for the ladder.
    """
    if isinstance(value, timedelta):
        return _within(value.total_seconds(), value, what)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidArguments(f"{what}={value!r}: a duration is a number of seconds or a timedelta.")
    return _within(value, value, what)


def seconds_until(at: datetime, now: float, what: str = "at") -> float:
    """
    Return the seconds from `now` (since the epoch) to the time in the option `what`, 0 if it is past.

    Raises:
        InvalidArguments: it is not a time, not timezone-aware, or too late for the ladder.
    """
    if not isinstance(at, datetime):
        raise InvalidArguments(f"{what}={at!r}: it must be a timezone-aware datetime.")
    return _within(max(0.0, timestamp_of(at, what) - now), at, what)


def timestamp_of(at: datetime, what: str) -> float:
    """
    Return the time in the option `what`, in seconds since the epoch.

    Raises:
        InvalidArguments: it is not timezone-aware, or its time zone raises an error.
    """
    try:
        seconds = None if at.utcoffset() is None else at.timestamp()
    except Exception as error:
        # Without the value: its text could raise an error too.
        raise InvalidArguments(f"{what}=…: its time zone raised {type(error).__name__}.") from error
    if seconds is None:
        raise InvalidArguments(f"{what}={at!r} must be timezone-aware.")
    return seconds


def clamp(seconds: float) -> float:
    """Return the nearest delay that the ladder has; 0 for NaN."""
    if math.isnan(seconds):
        return 0.0
    return float(min(max(seconds, 0.0), MAX_DELAY))


def _within(seconds: float, given: object, what: str) -> float:
    if seconds > MAX_DELAY:
        raise InvalidArguments(f"{what} is too long: at most {MAX_DELAY:.0f} seconds, {MAX_DELAY / _YEAR:.1f} years.")
    if not seconds >= 0:
        raise InvalidArguments(f"{what}={given!r}: it must be zero or more seconds.")
    return float(seconds)
