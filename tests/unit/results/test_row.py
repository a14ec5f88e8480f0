"""What a row knows of another one with its id."""

from __future__ import annotations

import pytest

from amqpworker.results.row import ResultRow
from tests.unit.results.rows import LATER, row


@pytest.mark.parametrize(
    ("stored", "stays"),
    [
        (row("a", first_sent="2026-11-30T18:00:00.000Z"), True),
        (row("a", b"", first_sent="2026-11-30T18:00:00.000Z"), False),
        (row("a", first_sent="2026-11-30T17:00:00.000Z"), False),
        (row("a", first_sent="2026-11-30T18:00:00.000Z", expires_at=100.0), False),
    ],
    ids=["reply", "no reply yet", "another message with its id", "expired"],
)
def test_a_row_has_the_reply_of_another_one_if_it_is_of_the_same_message_and_has_not_expired(
    stored: ResultRow, stays: bool
) -> None:
    later = row("a", b"cancelled", LATER, "2026-11-30T18:00:00.000Z")
    assert stored.has_reply_of(later, 100.0) is stays
