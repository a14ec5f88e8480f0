"""What a coroutine awaits."""

from __future__ import annotations

import asyncio

import pytest

from amqpworker.broker.pending_publish import GRACE, PendingPublish
from amqpworker.client import deadlines
from amqpworker.client.awaiting import AwaitedPublish
from amqpworker.model.message import Properties, Publication


def test_a_message_that_was_confirmed_while_its_loop_was_blocked_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "CHECK_EVERY", 0.001)
    pending = PendingPublish(Publication("", "work", Properties(), b""), -GRACE)  # its deadline has passed

    async def run() -> AwaitedPublish:
        # Its confirm is handed over to the loop, but a timer of the loop is called first, as by libuv.
        sending = AwaitedPublish(lambda **_: pending, lambda _: None)
        asyncio.get_running_loop().call_soon(pending.finish, None)
        await sending.wait()
        return sending

    assert asyncio.run(run()).error is None
