"""Times and durations on the command line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from amqpworker.cli.option_times import future_time, seconds_or_none, time_or_seconds
from amqpworker.errors import InvalidArguments


def in_seconds(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def test_a_time_that_has_just_passed_is_accepted_and_an_older_one_is_refused_with_what_to_do_instead() -> None:
    for seconds in (-30.0, 0.0, 30.0):
        text = in_seconds(seconds)
        assert future_time(text, "--at", "") == datetime.fromisoformat(text)
    with pytest.raises(InvalidArguments, match=r"^--at '.*' is in the past: check the date\. Use --now\.$"):
        future_time(in_seconds(-90.0), "--at", "Use --now.")
    assert future_time(None, "--at", "") is None


@pytest.mark.parametrize(("text", "seconds"), [("90", 90.0), ("0.5", 0.5), ("2h", 7200.0), ("1e2", 100.0)])
def test_a_limit_is_a_duration_in_any_unit_or_a_time(text: str, seconds: float) -> None:
    assert time_or_seconds(text, "--due-before") == seconds
    assert time_or_seconds("2026-12-24T18:00Z", "--due-before") == datetime(2026, 12, 24, 18, tzinfo=UTC)


def test_a_duration_that_is_not_given_is_none() -> None:
    assert seconds_or_none(None, "--delay") is None
    assert seconds_or_none("30s", "--delay") == 30.0
