"""
Makes sure that the topology exists, once per connection.

Decides the order of the declarations, what a refusal means, and what happens if the broker does not answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

from amqpworker.broker.channel_errors import DECLARED_ELSEWHERE, channel_error
from amqpworker.broker.connection import Channel, ChannelError, Connection
from amqpworker.broker.own_channel import OwnChannel
from amqpworker.errors import AmqpWorkerError, NotConnected
from amqpworker.log.logger import get_logger
from amqpworker.routing.queues import Requirement
from amqpworker.routing.topology import Part

if TYPE_CHECKING:
    from amqpworker.broker.keeper import ConnectionKeeper

log = get_logger(__name__)

# A queue that is declared again within 20 ms of its deletion leaves its consumers behind: RabbitMQ 3.10 does not cancel them,
# and drops what the new queue delivers to them (tested). This is longer than any broker takes to announce the deletion.
REDECLARE_DELAY = 1.0
# One of this many declarations asks for an answer, which shows progress; each answer costs a round trip.
ANSWER_EVERY = 8

OnDeclared: TypeAlias = Callable[[AmqpWorkerError | None], None]


class Declarer:
    """Declares what is required on one connection, each requirement once."""

    def __init__(self, connection: Connection, keeper: ConnectionKeeper[Any]) -> None:
        self.declared: set[Requirement] = set()
        self._connection = connection
        self._keeper = keeper
        self._liveness = keeper.liveness
        self._stop_waiting: Callable[[], None] = lambda: None
        self._channel = OwnChannel(connection, self._on_closed)
        # What is to be declared, in this order.
        self._callbacks: dict[Requirement, list[OnDeclared]] = {}
        self._declared_parts: list[Part] = []
        self._current: Requirement | None = None
        self._delayed: set[Requirement] = set()

    def ensure(self, requirement: Requirement, on_declared: OnDeclared) -> None:
        """Call `on_declared` once the requirement exists, or with the error why it cannot."""
        if requirement in self.declared:
            on_declared(None)
            return
        self._callbacks.setdefault(requirement, []).append(on_declared)
        self._declare_next()

    def forget(self, requirements: Iterable[Requirement] | None = None) -> None:
        """
        Declare `requirements`, or everything, again when next required, but not at once: a part may have been deleted.

        Other requirements are not affected: a deleted queue only holds up those who send to it.
        """
        deleted = set(self.declared) if requirements is None else self.declared.intersection(requirements)
        if not deleted:
            return
        self.declared = self.declared - deleted
        parts = [part for requirement in deleted for part in requirement.make_topology()]
        self._declared_parts = [part for part in self._declared_parts if part not in parts]
        self._delayed |= deleted
        if self._connection.is_open:
            self._keeper.call_later(REDECLARE_DELAY, lambda: self._on_delay_over(deleted))

    def _on_delay_over(self, requirements: set[Requirement]) -> None:
        self._delayed -= requirements
        self._declare_next()

    def _declare_next(self) -> None:
        if self._current is not None or not self._connection.is_open:
            return
        self._current = next((one for one in self._callbacks if one not in self._delayed), None)
        if self._current is not None:
            self._expect_answer()
            self._channel.use(self._declare)

    def _expect_answer(self) -> None:
        self._stop_waiting()
        self._stop_waiting = self._liveness.expect_answer(self._on_late)

    def _on_late(self, may_leave: bool) -> None:
        """Give up what is not answered: the connection, or only this channel if the connection is otherwise in use."""
        requirement = self._current
        if requirement is None:
            return
        if may_leave:
            self._liveness.leave(f"the declaration of {requirement}")
            return
        self._channel.close()
        self._finish(NotConnected(f"The broker did not answer the declaration of {requirement} in time."))

    def _declare(self, channel: Channel) -> None:
        assert self._current is not None
        parts = [part for part in self._current.make_topology() if part not in self._declared_parts]
        if not parts:
            self._finish(None)
            return
        # Few are answered: a channel is served in order, and a refusal of any of them closes it.
        on_some_declared = self._channel.unless_closed(self._expect_answer)
        for number, part in enumerate(parts[:-1], 1):
            channel.declare(part, None if number % ANSWER_EVERY else on_some_declared)

        def on_all_declared() -> None:
            self._declared_parts += parts
            self._finish(None)

        channel.declare(parts[-1], self._channel.unless_closed(on_all_declared))

    def _on_closed(self, error: ChannelError) -> None:
        # If the connection has ended no callback is called: its user asks again on the next connection.
        if self._current is not None and self._connection.is_open:
            self._finish(channel_error(error, f"declaring {self._current}", "configure", DECLARED_ELSEWHERE))

    def _finish(self, error: AmqpWorkerError | None) -> None:
        self._stop_waiting()
        requirement, self._current = self._current, None
        assert requirement is not None
        if error is None:
            self.declared.add(requirement)
        else:
            log.warning("topology_not_declared", requirement=str(requirement), reason=str(error))
        for on_declared in self._callbacks.pop(requirement, []):
            on_declared(error)
        self._declare_next()
