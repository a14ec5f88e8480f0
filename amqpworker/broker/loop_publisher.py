"""
The publishing side of one event loop: a connection of aio-pika that all its coroutines use.

Decides when it is closed, and bounds that; `publish_core` decides when to write, `loop_keeper` keeps the connection.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from amqpworker.broker.address import Address
from amqpworker.broker.connection import CLOSED, TICK
from amqpworker.broker.loop_keeper import LoopKeeper
from amqpworker.broker.pending_publish import PendingPublish
from amqpworker.broker.publish_core import PublishCore
from amqpworker.errors import AmqpWorkerError, NotConnected
from amqpworker.settings import Settings

if TYPE_CHECKING:
    from amqpworker.client.calls import Calls


class LoopPublisher(PublishCore):
    """Publishes with confirms and `mandatory`, from the running event loop, over one connection that it makes at once."""

    def __init__(self, addresses: Sequence[Address], settings: Settings, calls: Calls) -> None:
        self.io: LoopKeeper = LoopKeeper("publisher", addresses, settings, self)
        super().__init__(self.io, settings, calls)

    def _on_submitted(self, pending: PendingPublish, urgent: bool) -> None:
        """Have a publication of a lane written, with all others of this turn of the loop."""
        if urgent or not self.io.is_ticking:
            self.io.wake()
        if self.io.has_ended:
            pending.finish(NotConnected(CLOSED))

    @property
    def is_last(self) -> bool:
        """Whether there is no other connection after this one."""
        return self.io.is_leaving

    async def open(self, timeout: float) -> AmqpWorkerError | None:
        """
        Connect, and return the error that another attempt cannot change: a login, a virtual host, or TLS that is refused.

        A broker that is unavailable is not waited for longer than `timeout` seconds: the attempts continue.
        """
        self.io.start()
        try:
            await asyncio.wait_for(self.io.attempted.wait(), timeout)
        except TimeoutError:
            return None
        problem = self.io.problem
        return problem.error() if problem is not None and problem.kind != "unreachable" else None

    async def close(self, timeout: float) -> bool:
        """Wait for outstanding confirms, then close; what is not confirmed by then fails, and this returns false."""
        until = time.monotonic() + timeout
        while not self.is_idle and time.monotonic() < until:
            await asyncio.sleep(TICK)
        confirmed = self.is_idle
        await self.io.stop()
        return confirmed
