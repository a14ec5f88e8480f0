"""A message that waits in the delay ladder: when it is due, as far as its headers are believed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from amqpworker.errors import InvalidArguments
from amqpworker.model.headers import now_text
from amqpworker.model.message import Delivery, Properties
from amqpworker.model.pending_message import PendingMessage
from amqpworker.routing.delay import longest_wait
from amqpworker.routing.envelope import rescheduled
from amqpworker.routing.topology import Names

NOW = 1_796_000_000.0


def delivery(headers: dict[str, Any] | None = None, **properties: Any) -> Delivery:
    told = {"message_id": "m-1", "type": "shop.remind", "headers": headers, **properties}
    return Delivery(1, False, "amqpworker.delay.10", "emails", Properties(**told), b"{}")


def test_a_message_is_due_at_its_eta() -> None:
    headers = {
        "aw-eta": now_text(NOW + 100),
        "aw-first-sent": now_text(NOW - 28),
        "aw-expires": now_text(NOW + 500),
        "aw-attempt": 3,
    }
    found = PendingMessage.of(delivery(headers), 128.0, NOW)
    assert (found.id, found.task, found.queue, found.attempt) == ("m-1", "shop.remind", "emails", 3)
    assert found.due == datetime.fromtimestamp(NOW + 100, UTC)
    assert not found.is_latest
    assert found.first_sent == datetime.fromtimestamp(NOW - 28, UTC)
    assert found.expires == datetime.fromtimestamp(NOW + 500, UTC)
    assert found.unknown_since is None


@pytest.mark.parametrize("eta", [None, "soon", now_text(NOW - 1), now_text(NOW + 130), [1], 10**30])
def test_without_a_believable_eta_a_message_is_due_when_it_leaves_the_ladder_at_the_latest(eta: Any) -> None:
    """One that was deferred keeps its eta, which is over."""
    headers = {"aw-eta": eta, "aw-unknown-since": now_text(NOW - 60)}
    found = PendingMessage.of(delivery(headers), 64.0, NOW)
    assert found.is_latest
    assert found.due == datetime.fromtimestamp(NOW + 64, UTC)
    assert found.unknown_since == datetime.fromtimestamp(NOW - 60, UTC)


@pytest.mark.parametrize("headers", [None, {"aw-attempt": "often", "aw-first-sent": 1e99}, {"aw-eta": b"\xff"}])
def test_a_message_of_any_program_can_be_read(headers: Any) -> None:
    found = PendingMessage.of(delivery(headers, message_id=None, type=b"\xff"), 1.0, NOW)
    assert (found.id, found.task, found.attempt) == ("", "\\xff", 1)


def test_the_longest_wait_is_that_of_a_level_and_of_those_below_that_are_still_to_come() -> None:
    headers = {"aw-wait-03": True, "aw-wait-01": True, "aw-wait-00": None}
    assert longest_wait(3, headers) == (8 + 2 + 1) / 8
    assert longest_wait(1, headers) == (2 + 1) / 8
    assert longest_wait(0, {}) == 1 / 8


def test_a_rescheduled_message_keeps_what_it_is_and_gets_another_time() -> None:
    headers = {
        "aw-eta": now_text(NOW + 100),
        "aw-returned": now_text(NOW),
        "aw-attempt": 2,
        "aw-wait-09": True,
        "x-death": [],
        "tenant": "acme",
    }
    copy = rescheduled(delivery(headers, reply_to="r"), 2.0, Names(), NOW)
    assert (copy.exchange, copy.routing_key, copy.body) == ("amqpworker.delay.04", "emails", b"{}")
    assert copy.properties.message_id == "m-1"
    assert copy.properties.reply_to == "r"
    assert copy.properties.headers == {
        "aw-eta": now_text(NOW + 2),
        "aw-attempt": 2,
        "aw-wait-04": True,
        "tenant": "acme",
    }
    assert rescheduled(delivery(headers), 0.0, Names(), NOW).exchange == "amqpworker.due"


def test_a_message_is_not_rescheduled_to_a_time_after_it_expires() -> None:
    headers = {"aw-expires": now_text(NOW + 10)}
    assert rescheduled(delivery(headers), 9.0, Names(), NOW).exchange.startswith("amqpworker.delay")
    with pytest.raises(InvalidArguments, match=r"The message expires at .*, before it would be due: "):
        rescheduled(delivery(headers), 10.0, Names(), NOW)
