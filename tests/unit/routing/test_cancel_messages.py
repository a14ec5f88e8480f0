"""Where a cancel is published: at once to its stream, or into the delay ladder if its message is due later."""

from __future__ import annotations

import pytest

from amqpworker.model.cancel import HOLDS, Cancel, decode_cancel
from amqpworker.routing.cancel_messages import LEAD, publication_of_cancel, waits
from amqpworker.routing.delay import MAX_DELAY
from amqpworker.routing.topology import Names

NOW = 1_790_000_000.0
NAMES = Names("amqpworker")
CANCEL = Cancel("m-1", int(NOW * 1000), int(NOW * 1000) + HOLDS)


@pytest.mark.parametrize("due", [None, NOW - 5, NOW, NOW + LEAD])
def test_a_cancel_of_what_is_due_within_an_hour_reaches_the_stream_at_once(due: float | None) -> None:
    publication = publication_of_cancel(CANCEL, due, NAMES, NOW, "web")
    assert waits(due, NOW) == 0
    assert (publication.exchange, publication.routing_key) == ("amqpworker.tasks", "amqpworker.cancelled")
    assert publication.mandatory
    assert publication.properties.present().keys() == {
        "content_type", "delivery_mode", "message_id", "timestamp", "type", "app_id"
    }  # fmt: skip
    assert publication.properties.type == "cancel"
    assert publication.properties.message_id != CANCEL.id
    assert decode_cancel(publication.body) == CANCEL


def test_a_cancel_of_what_is_due_later_waits_in_the_ladder_until_an_hour_before() -> None:
    publication = publication_of_cancel(CANCEL, NOW + LEAD + 90.1, NAMES, NOW)
    assert (publication.exchange, publication.routing_key) == ("amqpworker.delay.09", "amqpworker.cancelled")
    assert set(publication.properties.headers or ()) == {
        "aw-wait-09", "aw-wait-07", "aw-wait-06", "aw-wait-04", "aw-wait-00"
    }  # fmt: skip


def test_a_cancel_of_what_is_due_beyond_the_ladder_waits_as_long_as_it_can() -> None:
    assert waits(NOW + 2 * MAX_DELAY, NOW) == MAX_DELAY
    assert publication_of_cancel(CANCEL, NOW + 2 * MAX_DELAY, NAMES, NOW).exchange == "amqpworker.delay.30"
