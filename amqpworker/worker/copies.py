"""
Publish the copies of deliveries, repeatedly until the broker confirms them.

Decides when to try again, and when to stop: once the channel of the original is gone, the broker redelivers the original. A
copy is not published again while its confirm may still arrive, which is as long as its channel is open.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from amqpworker.errors import AmqpWorkerError, InvalidArguments, NotConnected, Unconfirmed
from amqpworker.lifecycle import backoff
from amqpworker.log.logger import get_logger
from amqpworker.model.clock import CLOCK, Clock
from amqpworker.model.message import Delivery, Publication
from amqpworker.routing.queues import Requirement

if TYPE_CHECKING:
    from amqpworker.broker.lane import Lane

log = get_logger(__name__)

FIRST_PAUSE = 1.0
MAX_PAUSE = 60.0
REPEAT_LOG_AFTER = 60.0


@dataclass(slots=True, eq=False)
class Copy:
    """
    A publication that takes the place of a delivery.

    `on_confirmed` is called once the broker has it, `on_refused` if it turns out later that the broker cannot accept it.
    """

    original: Delivery
    publication: Publication
    on_confirmed: Callable[[], None]
    on_refused: Callable[[], None]
    failures: int = 0

    def is_wanted(self) -> bool:
        """Return whether the copy is still needed: the broker has not requeued the original."""
        return self.original.channel.is_open

    def pause_after(self, error: AmqpWorkerError) -> float:
        """Return the seconds until the next attempt: longer each time if the broker refused it, but not if it was unreachable."""
        if isinstance(error, Unconfirmed | NotConnected):
            return FIRST_PAUSE
        self.failures += 1
        return backoff(FIRST_PAUSE, MAX_PAUSE, self.failures)


class CopyPublisher:
    """
    The copies that are not confirmed yet; `wake` wakes the thread that calls `try_again`.

    `requirements` returns what must exist for the copies to a queue. It is called for a copy to another queue than its
    original's, and after a failure, since an exchange may be gone.
    """

    def __init__(
        self,
        lane: Lane,
        timeout: float,
        requirements: Callable[[str], tuple[Requirement, ...]],
        wake: Callable[[], None],
        clock: Clock = CLOCK,
    ) -> None:
        self._lane = lane
        self._timeout = timeout
        self._requirements = requirements
        self._wake = wake
        self._monotonic = clock.monotonic
        self._under_way: set[Copy] = set()
        self._again: list[tuple[float, Copy]] = []
        # For each exchange: when it was logged last that it takes no copies, and how often that happened since.
        self._logged: dict[str, tuple[float, int]] = {}
        self._overdue_logged = -REPEAT_LOG_AFTER

    def publish(self, copy: Copy) -> None:
        """Publish a copy, from any thread; raises InvalidArguments, with nothing published, if AMQP cannot carry it."""
        self._under_way.add(copy)
        to = copy.publication.routing_key
        try:
            # The queue of the delivery exists; another one may be declared by nothing else.
            self._attempt(copy, () if to == copy.original.queue else self._requirements(to))
        except BaseException:
            self._under_way.discard(copy)
            raise

    def _attempt(self, copy: Copy, requirements: tuple[Requirement, ...]) -> None:
        pending = self._lane.make_pending(
            copy.publication, requirements, self._timeout, lambda error: self._on_done(copy, error)
        )
        pending.wanted = copy.is_wanted
        self._lane.submit(pending)

    def _on_done(self, copy: Copy, error: AmqpWorkerError | None) -> None:
        match error:
            case None:
                copy.on_confirmed()
            case InvalidArguments():
                # Only now the broker's limit for frames is known: trying again would not help.
                to = copy.publication
                log.warning("copy_too_large", queue=to.routing_key, exchange=to.exchange, reason=str(error))
                copy.on_refused()
            case _ if copy.is_wanted():
                pause = copy.pause_after(error)
                self._log(copy, error, pause)
                self._again.append((self._monotonic() + pause, copy))
                self._wake()
                return
        self._under_way.discard(copy)

    def _log(self, copy: Copy, error: AmqpWorkerError, pause: float) -> None:
        """Log that a copy was not confirmed, once per minute and exchange, with their number since the last line."""
        now = self._monotonic()
        to = copy.publication
        at, count = self._logged.get(to.exchange, (-REPEAT_LOG_AFTER, 0))
        if now < at + REPEAT_LOG_AFTER:
            self._logged[to.exchange] = (at, count + 1)
            return
        self._logged[to.exchange] = (now, 0)
        log.warning(
            "copies_unconfirmed",
            count=count + 1,
            queue=to.routing_key,
            exchange=to.exchange,
            reason=str(error),
            retry_in=pause,
        )

    def try_again(self, now: float) -> None:
        """Publish the copies again whose pause is over (`now` is monotonic)."""
        for entry in [entry for entry in self._again if entry[0] <= now or not entry[1].is_wanted()]:
            # Entries are added by the publisher's thread meanwhile.
            self._again.remove(entry)
            copy = entry[1]
            if not copy.is_wanted():
                self._under_way.discard(copy)
                continue
            try:
                self._attempt(copy, self._requirements(copy.publication.routing_key))
            except AmqpWorkerError as error:
                self._on_done(copy, error)

    def overdue(self, now: float) -> int:
        """Return how many copies are not confirmed in time, and log that once per minute (`now` is monotonic)."""
        count = self._lane.overdue(now) if self._under_way else 0
        if count and now >= self._overdue_logged + REPEAT_LOG_AFTER:
            self._overdue_logged = now
            reason = "the broker has not answered in time: their deliveries are kept until it does"
            log.warning("copies_unconfirmed", count=count, reason=reason)
        return count

    @property
    def has_waiting(self) -> bool:
        """Whether any of them waits for another attempt."""
        return bool(self._again)

    @property
    def is_idle(self) -> bool:
        """Whether no copy waits for a confirm or another attempt."""
        return not self._under_way
