"""
Times and durations on the command line: how they are written, and which are refused.

Decides that a time in the past is a mistake where it would act at once: with a wrong year, a message would run now.
"""

from __future__ import annotations

import re
import time
from datetime import datetime

from amqpworker.errors import InvalidArguments

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
PAST_ALLOWED = 60.0
"""Seconds: the clocks of two machines, and the time it takes to type a command."""

DURATION = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)([smhdw]?)")


def seconds_of(text: str, option: str) -> float:
    """Return the seconds of `90`, `90s`, `15m`, `12h`, `30d` or `2w`; raises InvalidArguments for another text."""
    found = DURATION.fullmatch(text.strip())
    if found is None:
        raise InvalidArguments(
            f"{option} {text!r:.40}: it must be seconds, or a number with s, m, h, d or w, such as 90, 2h or 30d."
        )
    return float(found[1]) * SECONDS[found[2] or "s"]


def seconds_or_none(text: str | None, option: str) -> float | None:
    """Return the seconds of an option, `None` if it is not given; raises as `seconds_of` does."""
    return None if text is None else seconds_of(text, option)


def time_of(text: str, option: str, or_seconds: bool = False) -> datetime:
    """Return the time that an option has; raises InvalidArguments if it is not one with a time zone."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        expected = "neither a number of seconds, such as 90 or 2h, nor" if or_seconds else "not"
        raise InvalidArguments(
            f"{option} {text!r} is {expected} an ISO 8601 time such as 2026-12-24T18:00+01:00."
        ) from None
    if found.utcoffset() is None:
        raise InvalidArguments(f"{option} {text!r} has no time zone: add Z for UTC, or an offset such as +01:00.")
    return found


def future_time(text: str | None, option: str, instead: str) -> datetime | None:
    """Return the time that an option has, `None` if it is not given; raises InvalidArguments if it is past: do it `instead`."""
    if text is None:
        return None
    found = time_of(text, option)
    # Not `timestamp()`, which fails for the year 1 with an offset.
    if (found - datetime.fromtimestamp(time.time(), found.tzinfo)).total_seconds() < -PAST_ALLOWED:
        raise InvalidArguments(f"{option} {text!r} is in the past: check the date. {instead}")
    return found


def time_or_seconds(text: str, option: str) -> datetime | float:
    """Return the time or the duration that an option has; raises InvalidArguments if it is neither."""
    from amqpworker.policies.durations import duration

    if DURATION.fullmatch(text.strip()) is not None:
        return duration(seconds_of(text, option), option)
    try:
        seconds = float(text)
    except ValueError:
        return time_of(text, option, or_seconds=True)
    return duration(seconds, option)
