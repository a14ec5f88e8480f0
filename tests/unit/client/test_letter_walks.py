"""Which letters have died while a command runs."""

from __future__ import annotations

import pytest

from amqpworker.client.letter_walks import died_between, replayed_between
from amqpworker.model.dead_letter import DeadLetter
from amqpworker.model.headers import now_text
from amqpworker.model.message import Delivery, Headers, Properties

BEGAN, NOW = 1_000_000_000_000, 1_000_000_060_000
BEFORE, MEANWHILE, LATER = (now_text(moment / 1000) for moment in (BEGAN - 1, BEGAN + 1000, NOW + 1000))


@pytest.mark.parametrize(
    ("moment", "meanwhile"), [(BEFORE, False), (MEANWHILE, True), (LATER, False), ("nonsense", False), (None, False)]
)
def test_a_letter_died_or_was_replayed_meanwhile_if_that_was_after_the_begin_and_not_in_the_future(
    moment: str | None, meanwhile: bool
) -> None:
    died, replayed = letter_with({"aw-failed-at": moment}), letter_with({"aw-replayed": moment})
    assert (died_between(died, BEGAN, NOW), replayed_between(died, BEGAN, NOW)) == (meanwhile, False)
    assert (died_between(replayed, BEGAN, NOW), replayed_between(replayed, BEGAN, NOW)) == (False, meanwhile)


def letter_with(headers: Headers) -> DeadLetter:
    return DeadLetter.of(Delivery(1, False, "dead", "emails", Properties(headers=headers), b"{}"), "emails.dead")
