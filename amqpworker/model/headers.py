"""
Our headers: their names, and the times and counts in them.

A time is written as ISO 8601 in UTC with milliseconds, which people can read in RabbitMQ's UI. Decides which values are
accepted from other programs, and which names are not the sender's to use.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache

from amqpworker.model.message import Headers, HeaderValue

PREFIX = "aw-"
ATTEMPT = "aw-attempt"
ETA = "aw-eta"
EXPIRES = "aw-expires"
FIRST_SENT = "aw-first-sent"
FIRST_RUN = "aw-first-run"
RETURNED = "aw-returned"
REPLAYED = "aw-replayed"
CRASHES = "aw-crashes"
UNKNOWN_SINCE = "aw-unknown-since"
VERSION = "aw-version"
TIME_LIMIT = "aw-time-limit"
HARD_LIMIT = "aw-hard-limit"
SCHEDULE = "aw-schedule"
NOMINAL = "aw-nominal"
WAIT_PREFIX = "aw-wait-"

DEAD_REASON = "aw-dead-reason"
ERROR_TYPE = "aw-error-type"
ERROR_TEXT = "aw-error"
TRACEBACK = "aw-traceback"
FAILED_AT = "aw-failed-at"
WORKER = "aw-worker"
EVIDENCE = (DEAD_REASON, ERROR_TYPE, ERROR_TEXT, TRACEBACK, FAILED_AT, WORKER)

# Headers by which RabbitMQ would send copies elsewhere.
COPY_HEADERS = ("cc", "bcc")

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)
# 20261128 is a date in ISO 8601, without a zone; as milliseconds it would be in 1970.
DIGITS_OF_A_DATE = 8
# The years 1 to 9999, as `datetime` has them.
EARLIEST = -62_135_596_800_000
LATEST = 253_402_300_799_999
EXAMPLE = "2026-11-28T23:59:59.123Z"

# Longer limits are none: these are more than thirty years.
MAX_LIMIT_SECONDS = 1_000_000_000

_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,18}")
_DECIMAL_NUMBER = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18})?")
_FRACTIONS = tuple(f".{number:03d}Z" for number in range(1000))


class UnusableHeader(ValueError):
    """The value of one of our headers is not valid; the text names it."""


def wait_header(level: int) -> str:
    """Return the header whose presence sends a message through this level of the delay ladder."""
    return f"{WAIT_PREFIX}{level:02d}"


def is_reserved(header: str) -> bool:
    """Return whether a header's name is ours or the broker's: senders cannot set it."""
    lowered = header.lower()
    return lowered.startswith((PREFIX, "x-")) or lowered in COPY_HEADERS


@lru_cache(maxsize=64)
def time_text(milliseconds: int) -> str:
    """Return a time (milliseconds since the epoch) as it is written, the nearest one of the years 1 to 9999."""
    seconds, rest = divmod(min(max(milliseconds, EARLIEST), LATEST), 1000)
    return _second_text(seconds) + _FRACTIONS[rest]


@lru_cache(maxsize=64)
def _second_text(seconds: int) -> str:
    # the same for all messages that are sent in it
    return (EPOCH + timedelta(seconds=seconds)).isoformat()[:19]


def now_text(now: float) -> str:
    """Return a time in seconds since the epoch as it is written."""
    return time_text(int(now * 1000))


def time_of(value: HeaderValue) -> int | None:
    """
    Return the time in a header, in milliseconds since the epoch; `None` if it is not a time.

    It may be ISO 8601 with a zone, whole milliseconds since the epoch, those as decimal text, or an AMQP timestamp.
    """
    kind = type(value)
    if kind is str:
        return _time_in_text(value)
    if kind is int:
        return value  # type: ignore[no-any-return]
    return _time_in_date(value) if isinstance(value, datetime) else None


@lru_cache(maxsize=64)
def _time_in_text(text: str) -> int | None:
    # Neighbours in a queue were often sent in the same millisecond.
    # Whole numbers first, since Python reads many of them as a date and a time without a separator.
    if _WHOLE_NUMBER.fullmatch(text):
        return None if len(text) == DIGITS_OF_A_DATE else int(text)
    try:
        return _time_in_date(datetime.fromisoformat(text))
    except ValueError:
        return None


def _time_in_date(date: datetime) -> int | None:
    # Without a zone the time would depend on the machine.
    return None if date.tzinfo is None else (date - EPOCH) // MILLISECOND


def count_of(value: HeaderValue) -> int | None:
    """Return a header that is a whole number or the decimal text of one; `None` for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, str) and _WHOLE_NUMBER.fullmatch(value):
        return int(value)
    return None


def limit_of(value: HeaderValue) -> int | None:
    """Return a time limit in milliseconds, at least one; `None` unless it is seconds above 0, as a number or decimal text."""
    if isinstance(value, str):
        value = float(value) if _DECIMAL_NUMBER.fullmatch(value) else None
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal) or not value > 0 or value == math.inf:
        return None
    return _milliseconds(value)


def limit_value(seconds: float) -> HeaderValue:
    """
    Return a time limit as it is written: whole seconds as a whole number, others as decimal text.

    pika reads a double in a table as a whole number, without its fraction.
    """
    whole, rest = divmod(_milliseconds(seconds), 1000)
    return f"{whole}.{rest:03d}".rstrip("0") if rest else whole


def _milliseconds(seconds: float | Decimal) -> int:
    return max(1, round(min(seconds, MAX_LIMIT_SECONDS) * 1000))


def version_of(headers: Headers | None) -> int:
    """Return the version of a message's arguments; 1 if its header is absent or not valid."""
    return max(1, count_of((headers or {}).get(VERSION)) or 1)


def first_sent_text(headers: Headers | None) -> str:
    """Return when a message was sent first, as it is written, which identifies its result; "" if it has no such time."""
    milliseconds = time_of((headers or {}).get(FIRST_SENT))
    return "" if milliseconds is None else time_text(milliseconds)


def _count_from(least: int) -> Callable[[HeaderValue], int | None]:
    def read(value: HeaderValue) -> int | None:
        count = count_of(value)
        return count if count is not None and count >= least else None

    return read


_TIME = f"it must be ISO 8601 with a zone, such as {EXAMPLE}, or whole milliseconds since the epoch"
_READERS: dict[str, tuple[Callable[[HeaderValue], int | None], str]] = {
    ATTEMPT: (_count_from(1), "it must be a whole number from 1"),
    VERSION: (_count_from(1), "it must be a whole number from 1"),
    CRASHES: (_count_from(0), "it must be a whole number from 0"),
    **dict.fromkeys((TIME_LIMIT, HARD_LIMIT), (limit_of, "it must be a number of seconds above 0")),
    **dict.fromkeys(
        (ETA, EXPIRES, FIRST_SENT, FIRST_RUN, RETURNED, REPLAYED, UNKNOWN_SINCE, NOMINAL), (time_of, _TIME)
    ),
}


def header_values() -> dict[str, str]:
    """Return what the value of each of our headers that a worker reads must be, by its name."""
    return {name: text for name, (_, text) in _READERS.items()}


def read_headers(headers: Headers) -> dict[str, int]:
    """
    Return the values of our headers that a worker uses, times in milliseconds since the epoch, limits in milliseconds.

    Raises UnusableHeader if one is not valid: if it were ignored, a task could run years too early.
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
