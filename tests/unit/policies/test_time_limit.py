"""Which limits a run has whose message has its own."""

from __future__ import annotations

import math

import pytest

from amqpworker.policies.time_limit import UNLIMITED, TimeLimit, limit_of_message

OWN = TimeLimit(30.0, 60.0)


@pytest.mark.parametrize(
    ("own", "soft", "hard", "limit"),
    [
        (OWN, 10_000, None, TimeLimit(10.0, 60.0)),
        (OWN, None, 90_500, TimeLimit(30.0, 90.5)),
        (OWN, 1500, 2000, TimeLimit(1.5, 2.0)),
        (OWN, 600_000, None, TimeLimit(600.0, math.inf)),
        (OWN, None, 10_000, TimeLimit(30.0, 10.0)),
        (UNLIMITED, 10_000, None, TimeLimit(10.0, math.inf)),
        (UNLIMITED, None, 10_000, TimeLimit(math.inf, 10.0)),
    ],
)
def test_each_limit_of_a_message_takes_the_place_of_the_task_s_and_more_time_drops_a_shorter_hard_one(
    own: TimeLimit, soft: int | None, hard: int | None, limit: TimeLimit
) -> None:
    assert limit_of_message(own, soft, hard) == limit


def test_the_first_limit_counts_if_a_message_from_elsewhere_has_a_hard_one_that_is_shorter() -> None:
    assert limit_of_message(UNLIMITED, 5000, 1000).first == 1.0
