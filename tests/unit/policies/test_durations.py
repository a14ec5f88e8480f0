"""Durations and times that users give."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from amqpworker.errors import InvalidArguments
from amqpworker.policies.durations import duration, seconds_until, timestamp_of
from amqpworker.routing.delay import MAX_DELAY

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("value", "seconds"), [(0, 0.0), (3, 3.0), (0.5, 0.5), (timedelta(minutes=1), 60.0), (MAX_DELAY, MAX_DELAY)]
)
def test_a_duration_is_a_number_of_seconds_or_a_timedelta(value: float | timedelta, seconds: float) -> None:
    assert duration(value, "delay") == seconds


@pytest.mark.parametrize("value", [True, False, None, "5", -1, -0.1, timedelta(seconds=-1), timedelta(days=4000)])
def test_anything_else_is_refused_with_the_name_of_the_option(value: float) -> None:
    with pytest.raises(InvalidArguments, match="expires"):
        duration(value, "expires")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), MAX_DELAY + 1, int("9" * 999)])
def test_a_number_that_the_ladder_has_not_is_refused_with_the_name_of_the_option(value: float) -> None:
    with pytest.raises(InvalidArguments, match="delay"):
        duration(value, "delay")


@pytest.mark.parametrize(
    ("at", "seconds"),
    [
        (datetime.fromtimestamp(NOW + 60, UTC), 60.0),
        (datetime.fromtimestamp(NOW + 60, timezone(timedelta(hours=-7))), 60.0),
        (datetime.fromtimestamp(NOW, UTC), 0.0),
        (datetime.fromtimestamp(NOW - 60, UTC), 0.0),
        (datetime.min.replace(tzinfo=UTC), 0.0),
    ],
)
def test_a_time_is_so_many_seconds_away_and_none_if_it_is_past(at: datetime, seconds: float) -> None:
    assert seconds_until(at, NOW) == seconds


@pytest.mark.parametrize(
    ("at", "told"),
    [
        (datetime(2027, 1, 1), r"^at=.* must be timezone-aware"),  # noqa: DTZ001 - the naive datetime is what is tested
        (datetime.max.replace(tzinfo=UTC), r"^at is too late: at most 8.5 years ahead, 20\d\d-\d\d-\d\dT\d\d:\d\dZ\.$"),
        (NOW + 60, r"^at=.* must be a timezone-aware datetime"),
        ("2027-01-01T00:00:00Z", r"^at=.* must be a timezone-aware datetime"),
    ],
)
def test_an_ambiguous_time_is_refused(at: datetime, told: str) -> None:
    with pytest.raises(InvalidArguments, match=told):
        seconds_until(at, NOW)


def test_what_is_not_a_time_is_named_with_its_option() -> None:
    tomorrow: Any = "tomorrow"
    with pytest.raises(InvalidArguments, match=r"^due='tomorrow': it must be a timezone-aware datetime\.$"):
        timestamp_of(tomorrow, "due")
