"""
What the values of our headers mean: times and counts, as they are read and written.

A time is written as ISO 8601 in UTC with milliseconds, which people can read in RabbitMQ's UI. Decides what is
accepted of what others wrote; what a time leads to is for others to decide.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from amqpworker.model.message import (
    ATTEMPT,
    CRASHES,
    ETA,
    EXPIRES,
    FIRST_RUN,
    FIRST_SENT,
    REPLAYED,
    RETURNED,
    Headers,
    HeaderValue,
)

__all__ = ["EPOCH", "UnusableHeader", "count_of", "now_text", "read_headers", "time_of", "time_text"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)
# 20261128 is a date in ISO 8601, without a zone; as milliseconds it would be a morning of 1970.
DIGITS_OF_A_DATE = 8
# What a calendar of four-digit years has.
EARLIEST = -62_135_596_800_000
LATEST = 253_402_300_799_999
EXAMPLE = "2026-11-28T23:59:59.123Z"

_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,18}")
_FRACTIONS = tuple(f".{number:03d}Z" for number in range(1000))


class UnusableHeader(ValueError):
    """A header of ours has a value that means nothing; the text names it."""


@lru_cache(maxsize=64)
def time_text(milliseconds: int) -> str:
    """Return a time (milliseconds since the epoch) as it is written; the nearest one that a calendar has. A burst has one."""
    seconds, rest = divmod(min(max(milliseconds, EARLIEST), LATEST), 1000)
    return _second_text(seconds) + _FRACTIONS[rest]


@lru_cache(maxsize=64)
def _second_text(seconds: int) -> str:
    """Return a whole second as it is written: the same one for every message that is sent in it."""
    return (EPOCH + timedelta(seconds=seconds)).isoformat()[:19]


def now_text(now: float) -> str:
    """Return a time in seconds since the epoch as it is written."""
    return time_text(int(now * 1000))


def time_of(value: HeaderValue) -> int | None:
    """
    Return the time that a header tells, in milliseconds since the epoch; `None` where it tells none.

    It may be ISO 8601 with a zone, whole milliseconds since the epoch, those as decimal text, or an AMQP timestamp.
    """
    kind = type(value)
    if kind is str:
        # First: Python takes many a whole number for a date and a time without anything in between.
        if _WHOLE_NUMBER.fullmatch(value):
            return None if len(value) == DIGITS_OF_A_DATE else int(value)
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if kind is int:
        return value  # type: ignore[no-any-return]
    # Without a zone it depends on the machine which time it is.
    if isinstance(value, datetime) and value.tzinfo is not None:
        return (value - EPOCH) // MILLISECOND
    return None


def count_of(value: HeaderValue) -> int | None:
    """Return a header that is a whole number, also where it is written as decimal text; `None` for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, str) and _WHOLE_NUMBER.fullmatch(value):
        return int(value)
    return None


def _attempt(value: HeaderValue) -> int | None:
    count = count_of(value)
    return count if count is not None and count > 0 else None


def _crashes(value: HeaderValue) -> int | None:
    count = count_of(value)
    return count if count is not None and count >= 0 else None


_TIME = f"a time is ISO 8601 with a zone, such as {EXAMPLE}, or whole milliseconds since the epoch"
_READERS: dict[str, tuple[Callable[[HeaderValue], int | None], str]] = {
    ATTEMPT: (_attempt, "it is a whole number from 1"),
    CRASHES: (_crashes, "it is a whole number from 0"),
    **dict.fromkeys((ETA, EXPIRES, FIRST_SENT, FIRST_RUN, RETURNED, REPLAYED), (time_of, _TIME)),
}


def read_headers(headers: Headers) -> dict[str, int]:
    """
    Return what the headers of ours say that a worker uses, times in milliseconds since the epoch.

    Raises:
        UnusableHeader: the value of one means nothing. To ignore it could run a task years too early.
    """
    known: dict[str, int] = {}
    for name, value in headers.items():
        reader = _READERS.get(name)
        if reader is not None:
            number = reader[0](value)
            if number is None:
                raise UnusableHeader(f"header {name!r} is {value!r:.80}: {reader[1]}")
            known[name] = number
    return known
