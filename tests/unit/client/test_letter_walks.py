"""Which letters have died while a command runs."""

from __future__ import annotations

import pytest

from amqpworker.client.letter_walks import died_between
from amqpworker.model.dead_letter import DeadLetter
from amqpworker.model.headers import now_text
from amqpworker.model.message import Delivery, Headers, Properties

BEGAN, NOW = 1_000_000_000_000, 1_000_000_060_000
BEFORE, MEANWHILE, LATER = (now_text(moment / 1000) for moment in (BEGAN - 1, BEGAN + 1000, NOW + 1000))


@pytest.mark.parametrize(
    ("headers", "meanwhile"),
    [
        ({"aw-failed-at": BEFORE}, False),
        ({"aw-failed-at": MEANWHILE}, True),
        ({"aw-failed-at": BEFORE, "aw-replayed": MEANWHILE}, True),
        ({"aw-failed-at": LATER, "aw-replayed": MEANWHILE}, True),
        ({"aw-failed-at": LATER}, False),
        ({"aw-failed-at": LATER, "aw-replayed": LATER}, False),
        ({}, False),
        ({"aw-failed-at": "nonsense", "aw-replayed": 7}, False),
    ],
)
def test_a_letter_died_meanwhile_if_its_death_or_its_replay_was_after_the_begin_and_not_in_the_future(
    headers: Headers, meanwhile: bool
) -> None:
    letter = DeadLetter.of(Delivery(1, False, "dead", "emails", Properties(headers=headers), b"{}"), "emails.dead")
    assert died_between(letter, BEGAN, NOW) is meanwhile
