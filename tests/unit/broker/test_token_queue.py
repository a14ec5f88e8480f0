"""The connection of a scheduler: what belongs to a term that has ended does nothing."""

from __future__ import annotations

import pytest

from amqpworker import Settings
from amqpworker.broker.address import addresses
from amqpworker.broker.consumer_channel import Subscription
from amqpworker.broker.token_queue import TokenListener, TokenQueue
from amqpworker.client.calls import Calls


class Deaf(TokenListener):
    pass


def test_a_request_to_leave_does_not_end_a_later_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = TokenQueue(
        addresses("amqp://127.0.0.1:1/"), Settings(), Calls(), Subscription("amqpworker.schedule.main", 1), Deaf()
    )
    dropped: list[str] = []
    monkeypatch.setattr(queue.keeper, "drop", lambda reason, **_: dropped.append(reason))
    queue.leave(1, "the broker has confirmed nothing for 5 s")
    queue.on_wake()  # the term has ended meanwhile
    assert queue.term == 0
    assert dropped == []
