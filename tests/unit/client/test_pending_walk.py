"""Reading the delay ladder: which messages of two levels are one that has moved."""

from __future__ import annotations

from typing import Any

from amqpworker.client.pending_walk import key_of
from amqpworker.model.headers import now_text
from amqpworker.model.message import Delivery, Properties
from amqpworker.model.pending_message import PendingMessage

NOW = 1_796_000_000.0


def pending(headers: dict[str, Any] | None, waits: float = 1.0, now: float = NOW) -> PendingMessage:
    properties = Properties(message_id="m-1", type="shop.remind", headers=headers)
    return PendingMessage.of(Delivery(1, False, "amqpworker.delay.4", "emails", properties, b"{}"), waits, now)


def test_a_message_that_is_late_is_still_the_same() -> None:
    """A busy broker moves it to the next level after its time: when it is due is no longer known there."""
    headers = {"aw-eta": now_text(NOW + 1)}
    before, after = pending(headers), pending(headers, 0.5, NOW + 1.2)
    assert (before.is_latest, after.is_latest) == (False, True)
    assert key_of(before) == key_of(after)


def test_another_time_or_attempt_is_another_wait() -> None:
    others: list[dict[str, Any] | None] = [
        {"aw-eta": now_text(NOW + 2)},
        {"aw-eta": now_text(NOW + 1), "aw-attempt": 2},
        {"aw-eta": [1]},
        None,
    ]
    assert key_of(pending({"aw-eta": now_text(NOW + 1)})) not in [key_of(pending(other)) for other in others]
