"""What is read out of a dead letter, whichever program wrote it."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpworker.model.dead_letter import DeadLetter
from amqpworker.model.message import Delivery, Properties

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.datetimes(timezones=st.just(UTC))
    | st.builds(Decimal, st.integers(-(2**31), 2**31 - 1)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    [
        *("x-death", "aw-dead-reason", "aw-error-type", "aw-error", "aw-traceback", "aw-worker", "aw-attempt"),
        *("aw-failed-at", "aw-first-sent"),
    ]
)


def got(headers: dict[str, Any] | None = None, **properties: Any) -> Delivery:
    return Delivery(1, False, "amqpworker.dead", "emails", Properties(headers=headers, **properties), b"{}")


def test_the_evidence_of_a_worker_is_read() -> None:
    headers = {
        "aw-dead-reason": "failed",
        "aw-error-type": "shop.errors.NoRoute",
        "aw-error": "no route",
        "aw-traceback": "Traceback …",
        "aw-failed-at": "2026-11-28T12:00:00.000Z",
        "aw-first-sent": 1_795_860_000_000,
        "aw-attempt": "4",
        "aw-worker": "host:1",
    }
    message = got(headers, message_id="id-1", type="shop.welcome")
    for received in (message,):
        assert DeadLetter.of(received, "emails.dead", 7) == DeadLetter(
            position=7,
            id="id-1",
            task="shop.welcome",
            queue="emails.dead",
            reason="failed",
            by_broker=False,
            error_type="shop.errors.NoRoute",
            error="no route",
            traceback="Traceback …",
            attempt=4,
            failed_at=NOON,
            first_sent=datetime.fromtimestamp(1_795_860_000, UTC),
            worker="host:1",
            problem="",
            message=received,
        )


@pytest.mark.parametrize(
    ("queue", "reason", "read"),
    [
        ("emails", "delivery_limit", "delivery_limit"),
        ("emails", "expired", "expired"),
        ("amqpworker.delay.03", "expired", "no-queue"),
        ("amqpworker.delay.03", "rejected", "rejected"),
    ],
)
def test_the_latest_death_by_the_broker_is_read(queue: str, reason: str, read: str) -> None:
    deaths = [{"queue": queue, "reason": reason, "time": NOON}, {"queue": "older", "reason": "maxlen"}]
    letter = DeadLetter.of(got({"x-death": deaths}), "amqpworker.parked", 1)
    assert (letter.reason, letter.by_broker, letter.failed_at) == (read, True, NOON)


def test_the_evidence_of_a_worker_counts_before_that_of_the_broker() -> None:
    letter = DeadLetter.of(got({"aw-dead-reason": "expired", "x-death": [{"reason": "rejected"}]}), "q", 1)
    assert (letter.reason, letter.by_broker) == ("expired", False)


@given(st.dictionaries(NAMES, VALUES))
def test_no_header_makes_a_dead_letter_unreadable(headers: dict[str, Any]) -> None:
    letter = DeadLetter.of(got(headers), "q", 1)
    assert letter.attempt >= 1
    assert all(isinstance(text, str) for text in (letter.reason, letter.error, letter.traceback, letter.worker))
