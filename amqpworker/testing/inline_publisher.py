"""
The sending side of an app that runs inline: its messages go to a function instead of a connection.

What is published is encoded as for RabbitMQ, with the same errors. What becomes of it is decided by `inline_broker`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from amqpworker.broker.lane import Lane
from amqpworker.broker.publisher import Publisher
from amqpworker.client.carriers import Carrier, Carriers, ThreadCarrier
from amqpworker.client.event_loop_warning import require_event_loop

if TYPE_CHECKING:
    from amqpworker.broker.address import Address
    from amqpworker.broker.pending_publish import OnDone, PendingPublish
    from amqpworker.broker.publish_session import Purpose, Session
    from amqpworker.client.calls import Calls
    from amqpworker.client.producer import Producer
    from amqpworker.model.message import Publication
    from amqpworker.routing.queues import Requirement
    from amqpworker.settings import Settings

Accept: TypeAlias = "Callable[[PendingPublish, Purpose, Calls], None]"
"""Ends a publication at once: with its confirm, or with an error."""


class InlineLane(Lane):
    """Has each publication accepted at once, in the thread that publishes it."""

    def __init__(self, purpose: Purpose, session: Session, accept: Accept) -> None:
        super().__init__(purpose, session, lambda *_: None)
        self._accept = accept

    def publish(
        self,
        publication: Publication,
        requirements: tuple[Requirement, ...] = (),
        timeout: float | None = None,
        on_done: OnDone | None = None,
        urgent: bool = True,
        resend: bool | None = None,  # noqa: ARG002 - no confirm is lost here
    ) -> PendingPublish:
        """Publish, and return what has ended; raises as `Lane.publish` does."""
        pending = self.make_pending(publication, requirements, timeout, on_done)
        self.submit(pending, urgent)
        return pending

    def submit(self, pending: PendingPublish, urgent: bool = True) -> None:  # noqa: ARG002 - nothing waits here
        """Publish what `make_pending` has returned."""
        self._accept(pending, self.purpose, self.session.calls)


class InlinePublisher(Publisher):
    """A publisher without a connection, which starts no thread."""

    def __init__(self, addresses: Sequence[Address], settings: Settings, accept: Accept, calls: Calls) -> None:
        super().__init__(addresses, settings, calls)
        self.sends, self.calls, self.copies, self.replies, self.checks = self._lanes = tuple(
            InlineLane(lane.purpose, self.session, accept) for lane in self._lanes
        )

    def start(self) -> None:
        """Do nothing: it needs no connection."""


class InlineCarriers(Carriers):
    """Carries the messages of all event loops by the publisher; entering the app connects to nothing."""

    def __init__(self, producer: Producer) -> None:
        super().__init__(producer, ())

    def current(self) -> Carrier:
        """Return the carrier of the running loop."""
        return ThreadCarrier(self._producer)

    async def enter(self) -> None:
        """Check that an event loop runs."""
        require_event_loop()

    async def leave(self) -> None:
        """Do nothing: there is no connection."""

    async def close(self) -> None:
        """Do nothing: there is no connection."""
