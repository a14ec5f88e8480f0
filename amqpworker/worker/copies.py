"""
Publish the copies of deliveries, again and again until the broker confirms them.

Decides when to try again, and when not any more: once the channel of the original is gone it comes again by itself.
What a copy holds is `publication`'s, and acknowledging its original `settle`'s.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from amqpworker.broker.outgoing import Outgoing, WhenDone
from amqpworker.errors import AmqpWorkerError, InvalidArguments
from amqpworker.logs import get_logger
from amqpworker.message import Delivery, Publication

__all__ = ["Copies", "Publishes"]

log = get_logger(__name__)

PAUSE = 1.0


class Publishes(Protocol):
    """What is needed of the publisher."""

    def publish(
        self,
        publication: Publication,
        needs: tuple[str, ...] = (),
        timeout: float | None = None,
        when_done: WhenDone | None = None,
    ) -> Outgoing:
        """Put a publication on its way."""


class Copies:
    """The copies that are on their way; `wake` has `try_again` called soon, in whatever thread does so."""

    def __init__(self, publisher: Publishes, timeout: float, wake: Callable[[], None]) -> None:
        self._publisher = publisher
        self._timeout = timeout
        self._wake = wake
        self._count = 0
        self._count_lock = threading.Lock()
        self._again: deque[tuple[float, Callable[[], None]]] = deque()

    def publish(
        self, delivery: Delivery, copy: Publication, confirmed: Callable[[], None], refused: Callable[[], None]
    ) -> None:
        """
        Publish `copy`, and call `confirmed` once it is, or `refused` where it turns out later that it cannot be carried.

        Raises:
            InvalidArguments: it cannot be carried; nothing was published.
        """

        def attempt() -> None:
            self._publisher.publish(copy, timeout=self._timeout, when_done=when_done)

        def again() -> None:
            try:
                if delivery.channel.is_open:
                    attempt()
                else:
                    self._add(-1)
            except AmqpWorkerError as error:
                when_done(error)

        def when_done(error: AmqpWorkerError | None) -> None:
            if isinstance(error, InvalidArguments):
                # Only now has the broker told how small its frames are: trying again would not help.
                log.warning("copy_too_large", queue=copy.routing_key, exchange=copy.exchange, reason=str(error))
                refused()
            elif error is not None and delivery.channel.is_open:
                log.warning("copy_not_confirmed", queue=copy.routing_key, exchange=copy.exchange, reason=str(error))
                self._again.append((time.monotonic() + PAUSE, again))
                self._wake()
                return
            if error is None:
                confirmed()
            self._add(-1)

        self._add(1)
        try:
            attempt()
        except AmqpWorkerError:
            self._add(-1)
            raise

    def _add(self, count: int) -> None:
        with self._count_lock:
            self._count += count

    def try_again(self, now: float) -> None:
        """Publish once more what was not confirmed a while ago (`now` is monotonic)."""
        while self._again and self._again[0][0] <= now:
            _, again = self._again.popleft()
            again()

    @property
    def waiting(self) -> bool:
        """Whether any of them is to be tried again."""
        return bool(self._again)

    @property
    def idle(self) -> bool:
        """Whether none is on its way."""
        return not self._count
