"""
The publishing side of a process: one connection that any number of threads use.

Decides when to connect, and bounds every wait; `publish_core` decides when to write.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from amqpworker.broker.address import Address
from amqpworker.broker.io_thread import IOThread
from amqpworker.broker.publish_core import PublishCore
from amqpworker.settings import Settings

if TYPE_CHECKING:
    from amqpworker.client.calls import Calls

# While it closes, it checks this often whether it is needed after all.
JOIN_SLICE = 0.01


class Publisher(PublishCore):
    """Publishes with confirms and `mandatory`, from any thread, over one connection that is made at first use."""

    def __init__(self, addresses: Sequence[Address], settings: Settings, calls: Calls) -> None:
        self.keeper: IOThread = IOThread("publisher", addresses, settings, self)
        super().__init__(self.keeper, settings, calls)
        self._closed = False

    # ---- from any thread --------------------------------------------------------------------------------------------

    def consumers_of(self, name: str, timeout: float) -> int | None:
        """Return how many consumers a queue has; None if that is not known within `timeout` seconds."""
        if not self.connected:
            return None
        answer: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self.count_consumers(name, answer.put)
        try:
            return answer.get(timeout=timeout)
        except queue.Empty:
            return None

    @property
    def broken(self) -> bool:
        """Whether the I/O thread has ended without `retire` or `close`."""
        return self.keeper.has_ended and not self.keeper.is_retired

    @property
    def will_not_reconnect(self) -> bool:
        """Whether there is no other connection after this one."""
        return self.keeper.has_ended or self._closed

    def close(self, timeout: float, needed: Callable[[], bool] = lambda: False) -> bool:
        """
        Wait for outstanding confirms, then close; what is not confirmed by then fails, and this returns false.

        While it is `needed`, as by a call that waits for its reply, it stays open, and closes itself after that.
        """
        until = time.monotonic() + timeout
        self.keeper.retire(needed)
        while not self.keeper.join(JOIN_SLICE):
            if time.monotonic() >= until:
                break
            if self.is_idle and needed():
                return True
        confirmed = self.is_idle
        if not (confirmed and needed()):
            self._closed = True
            self.keeper.stop(1.0)
        return confirmed
