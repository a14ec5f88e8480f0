"""
Publish the copies of deliveries, again and again until the broker confirms them.

Decides when to try again, and when not any more: once the channel of the original is gone it comes again by itself.
What a copy holds is `publication`'s, and acknowledging its original `settle`'s.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from amqpworker.broker.outgoing import Outgoing, WhenDone
from amqpworker.errors import AmqpWorkerError, InvalidArguments
from amqpworker.logs import get_logger
from amqpworker.message import Delivery, Publication

__all__ = ["Copies", "Copy", "Publishes"]

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


@dataclass(frozen=True, slots=True, eq=False)
class Copy:
    """
    What takes the place of a delivery.

    `confirmed` is called once the broker has it, `refused` where it turns out later that it cannot be carried.
    """

    original: Delivery
    publication: Publication
    confirmed: Callable[[], None]
    refused: Callable[[], None]

    def warn(self, event: str, error: AmqpWorkerError | None) -> None:
        """Log what became of it."""
        log.warning(event, queue=self.publication.routing_key, exchange=self.publication.exchange, reason=str(error))


class Copies:
    """
    The copies that are on their way; `wake` has `try_again` called soon, in whatever thread does so.

    `needs` tells what must exist for the copies of a queue's messages. It is asked after a failure: an exchange may be gone.
    """

    def __init__(
        self,
        publisher: Publishes,
        timeout: float,
        needs: Callable[[str], tuple[str, ...]],
        wake: Callable[[], None],
    ) -> None:
        self._publisher = publisher
        self._timeout = timeout
        self._needs = needs
        self._wake = wake
        self._under_way: set[Copy] = set()
        self._again: deque[tuple[float, Copy]] = deque()

    def publish(self, copy: Copy) -> None:
        """
        Publish a copy, from any thread.

        Raises:
            InvalidArguments: it cannot be carried; nothing was published.
        """
        self._under_way.add(copy)
        try:
            self._attempt(copy, ())
        except BaseException:
            self._under_way.discard(copy)
            raise

    def _attempt(self, copy: Copy, needs: tuple[str, ...]) -> None:
        self._publisher.publish(copy.publication, needs, self._timeout, lambda error: self._on_done(copy, error))

    def _on_done(self, copy: Copy, error: AmqpWorkerError | None) -> None:
        match error:
            case None:
                copy.confirmed()
            case InvalidArguments():
                # Only now has the broker told how small its frames are: trying again would not help.
                copy.warn("copy_too_large", error)
                copy.refused()
            case _ if copy.original.intake.is_open:
                copy.warn("copy_not_confirmed", error)
                self._again.append((time.monotonic() + PAUSE, copy))
                self._wake()
                return
        self._under_way.discard(copy)

    def try_again(self, now: float) -> None:
        """Publish once more what was not confirmed a while ago (`now` is monotonic)."""
        while self._again and self._again[0][0] <= now:
            _, copy = self._again.popleft()
            if not copy.original.intake.is_open:
                self._under_way.discard(copy)
                continue
            try:
                self._attempt(copy, self._needs(copy.original.queue))
            except AmqpWorkerError as error:
                self._on_done(copy, error)

    @property
    def waiting(self) -> bool:
        """Whether any of them is to be tried again."""
        return bool(self._again)

    @property
    def idle(self) -> bool:
        """Whether none is on its way."""
        return not self._under_way
