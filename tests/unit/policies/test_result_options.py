"""The options of a task about its results: what excludes what, and which times are valid."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from amqpworker.errors import ConfigError
from amqpworker.policies.result_options import ResultOptions, result_options


def test_they_are_off_by_default_and_times_are_seconds_or_a_timedelta() -> None:
    assert result_options(True, False, False, None) == ResultOptions()
    assert result_options(True, True, True, timedelta(minutes=2)) == ResultOptions(True, True, True, 120.0)


@pytest.mark.parametrize(
    ("given", "text"),
    [((True, False, None), "track=True"), ((False, True, None), "dedupe=True"), ((False, False, 5), "result_ttl")],
)
def test_a_task_that_stores_nothing_can_have_none_of_them(given: tuple[Any, ...], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        result_options(False, *given)


@pytest.mark.parametrize("ttl", [0, -1, "5", True, float("nan"), 1e18])
def test_a_time_that_no_result_can_be_kept_for_is_refused(ttl: Any) -> None:
    with pytest.raises(ConfigError, match="result_ttl"):
        result_options(True, False, False, ttl)
