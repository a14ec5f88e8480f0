"""Which messages a cancel counts for, and until when; and what is read as one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from amqpworker.model.cancel import (
    HOLDS,
    Cancel,
    UnusableCancel,
    decode_cancel,
    encode_cancel,
    holds_until,
    merged,
)
from amqpworker.model.headers import FIRST_SENT, REPLAYED, time_text
from amqpworker.model.message import Delivery, Properties

AT = 1_790_000_000_000
DAY = 86_400_000
CANCEL = Cancel("m-1", AT, AT + HOLDS)


def delivery_of(task_id: str, headers: dict[str, Any] | None) -> Delivery:
    properties = Properties(message_id=task_id, headers=headers)
    return Delivery(1, False, "amqpworker.tasks", "emails", properties, b"{}")


def test_a_cancel_counts_for_what_was_sent_and_replayed_before_it_until_its_time_is_over() -> None:
    assert CANCEL.counts_for({FIRST_SENT: AT - 1}, AT)
    assert CANCEL.counts_for({}, AT), "a message made by hand has no such time"
    assert not CANCEL.counts_for({FIRST_SENT: AT}, AT)
    assert not CANCEL.counts_for({FIRST_SENT: AT - DAY, REPLAYED: AT + 1}, AT), "it was replayed later"
    assert CANCEL.counts_for({FIRST_SENT: AT - 2, REPLAYED: AT - 1}, AT)
    assert CANCEL.counts_for({FIRST_SENT: AT - 1}, AT + HOLDS - 1)
    assert not CANCEL.counts_for({FIRST_SENT: AT - 1}, AT + HOLDS)


def test_a_cancel_covers_deliveries_of_its_id_only() -> None:
    assert CANCEL.covers(delivery_of("m-1", {FIRST_SENT: time_text(AT - 1)}), AT)
    assert CANCEL.covers(delivery_of("m-1", None), AT)
    assert not CANCEL.covers(delivery_of("m-2", None), AT)
    assert not CANCEL.covers(delivery_of("m-1", {FIRST_SENT: "tomorrow"}), AT), "what is malformed never runs"


def test_a_cancel_holds_for_seven_days_after_its_message_is_due() -> None:
    now = AT / 1000
    assert holds_until(None, now) == AT + 7 * DAY
    assert holds_until(now - 1000, now) == AT + 7 * DAY, "it was due before"
    assert holds_until(now + 86_400 * 365, now) == AT + (365 + 7) * DAY


def test_of_two_cancels_of_an_id_the_longer_and_the_stronger_one_counts() -> None:
    other = Cancel("m-1", AT + 5, AT, force=True)
    assert merged(CANCEL, other) == merged(other, CANCEL) == Cancel("m-1", AT + 5, AT + HOLDS, force=True)


def test_a_cancel_is_read_as_it_was_written() -> None:
    assert decode_cancel(encode_cancel(CANCEL)) == CANCEL
    forced = Cancel("ü" * 100, AT, AT + 1, force=True)
    assert decode_cancel(encode_cancel(forced)) == forced
    assert json.loads(encode_cancel(CANCEL)) == {
        "id": "m-1",
        "at": "2026-09-21T14:13:20.000Z",
        "until": "2026-09-28T14:13:20.000Z",
        "force": False,
    }


def test_an_id_and_a_time_are_sufficient_and_more_is_ignored() -> None:
    assert decode_cancel(b'{"id": "m-1", "at": 1790000000000, "by": "me"}') == CANCEL


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "it is not JSON"),
        (b"\xff", "it is not JSON"),
        (b"[]", "it is not an object"),
        (b'{"at": 1}', "its id must be"),
        (b'{"id": "", "at": 1}', "its id must be"),
        (b'{"id": 5, "at": 1}', "its id must be"),
        (b'{"id": "m-1"}', "its 'at' must be a time"),
        (b'{"id": "m-1", "at": true}', "its 'at' must be a time"),
        (b'{"id": "m-1", "at": "2026-11-28T23:59:59"}', "its 'at' must be a time"),
        (b'{"id": "m-1", "at": 1, "until": "soon"}', "its 'until' must be a time"),
        (b'{"id": "m-1", "at": 1, "force": 1}', "its force must be"),
    ],
)
def test_what_is_not_a_cancel_is_refused_with_the_reason(body: bytes, reason: str) -> None:
    with pytest.raises(UnusableCancel, match=reason):
        decode_cancel(body)
