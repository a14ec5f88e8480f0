"""
The connection of a scheduler: it consumes the queue of its token, and publishes ticks and tokens.

Decides when it subscribes again. It is a single connection on purpose: if the broker gives it up, another scheduler leads, and
this one cannot publish any more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from amqpworker.broker.address import Address
from amqpworker.broker.channel_errors import channel_error
from amqpworker.broker.connection import ChannelError, ChannelListener, Connection
from amqpworker.broker.connection_problem import ConnectionProblem
from amqpworker.broker.consumer_channel import Subscription
from amqpworker.broker.consumer_check import resubscribes_silently
from amqpworker.broker.io_thread import IOThread
from amqpworker.broker.labels import ConsumerTags
from amqpworker.broker.pika_channel import PikaChannel
from amqpworker.broker.pika_connection import PikaConnection, version_of
from amqpworker.broker.publish_core import PublishCore
from amqpworker.errors import AmqpWorkerError, NotConnected
from amqpworker.lifecycle import backoff
from amqpworker.log.logger import get_logger
from amqpworker.model.message import Delivery
from amqpworker.routing.queues import Requirement
from amqpworker.settings import Settings

if TYPE_CHECKING:
    from amqpworker.client.calls import Calls

log = get_logger(__name__)

FIRST_PAUSE = 0.2
MAX_PAUSE = 10.0


class TokenListener(Protocol):
    """Receives what happens to the subscription; called in the I/O thread."""

    def on_subscribed(self, term: int) -> None:
        """The broker has confirmed the consumer: a new `term` begins."""

    def on_delivery(self, term: int, delivery: Delivery) -> None:
        """Receive a message; it is valid in this term only."""

    def on_term_ended(self, reason: AmqpWorkerError | ConnectionProblem) -> None:
        """The subscription was lost, or could not be made: the broker redelivers what was not acknowledged."""


class _TermChannel(ChannelListener):
    """The channel of one term."""

    def __init__(self, term: int, listener: TokenListener) -> None:
        self.term = term
        self.channel: PikaChannel | None = None
        self.is_open = True
        self._listener = listener

    def on_delivery(self, delivery: Delivery) -> None:
        if self.is_open:
            self._listener.on_delivery(self.term, delivery)


class TokenQueue(PublishCore):
    """
    Consumes one queue, and publishes with confirms, over one connection.

    A term is the life of one subscription, whether this scheduler leads or not. Terms are counted from 1; what belongs to an
    earlier one is neither acknowledged nor published.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        settings: Settings,
        calls: Calls,
        subscription: Subscription,
        listener: TokenListener,
    ) -> None:
        self.keeper: IOThread = IOThread("scheduler", addresses, settings, self, user_reports_errors=True)
        super().__init__(self.keeper, settings, calls)
        self._subscription = subscription
        self._listener = listener
        self._tags = ConsumerTags()
        self._connection: PikaConnection | None = None
        self._current: _TermChannel | None = None
        self._terms = 0
        self._pauses = 0
        self._todo: deque[Callable[[], None]] = deque()

    # ---- from any thread --------------------------------------------------------------------------------------------

    @property
    def term(self) -> int:
        """The number of the present term, 0 without a subscription."""
        current = self._current
        return 0 if current is None else current.term

    @property
    def requirements(self) -> tuple[Requirement, ...]:
        """What must exist before a token is published: if the broker refuses one, this is declared again."""
        return self._subscription.requirements

    @property
    def will_not_reconnect(self) -> bool:
        """Whether this connection is the last one."""
        return self.keeper.is_over

    def acknowledge(self, term: int, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge deliveries of a term; without effect once it has ended."""
        self._do(lambda: self._acknowledge(term, deliveries))

    def leave(self, term: int, reason: str) -> None:
        """Give up the connection of a term, so that another scheduler leads; without effect once the term has ended."""
        self._do(lambda: self._leave(term, reason))

    def release(self) -> None:
        """End the term: the broker redelivers the token, to another scheduler if there is one."""
        self._do(self._release_token)

    def _do(self, action: Callable[[], None]) -> None:
        self._todo.append(action)
        self.keeper.wake()

    # ---- in the I/O thread ------------------------------------------------------------------------------------------

    def on_opened(self, connection: Connection) -> None:
        """Subscribe, once what the queue requires exists."""
        super().on_opened(connection)
        assert isinstance(connection, PikaConnection)
        self._connection = connection
        self._pauses = 0
        self._prepare()

    def on_lost(self, problem: ConnectionProblem) -> None:
        """End the term."""
        self._connection = None
        self._end_term(problem)
        super().on_lost(problem)

    def on_wake(self) -> None:
        """Do what other threads have asked for, and write what waits."""
        while self._todo:
            self._todo.popleft()()
        super().on_wake()

    def _leave(self, term: int, reason: str) -> None:
        if term == self.term:
            self.keeper.drop(reason, close_properly=False)

    def _prepare(self) -> None:
        declarer = self.session.declarer
        if declarer is None or self._connection is None or self.keeper.is_stopping:
            return
        missing = [one for one in self._subscription.requirements if one not in declarer.declared]

        def on_declared(error: AmqpWorkerError | None) -> None:
            if declarer is not self.session.declarer:
                return
            if error is None:
                self._prepare()
            else:
                self._retry_later(error)

        if missing:
            declarer.ensure(missing[0], on_declared)
        else:
            self._subscribe(self._connection)

    def _subscribe(self, connection: PikaConnection) -> None:
        self._terms += 1
        term = self._current = _TermChannel(self._terms, self._listener)
        stop_waiting = self.keeper.liveness.expect_answer(lambda may_leave: self._on_late(term, may_leave))

        def on_opened(channel: PikaChannel) -> None:
            term.channel = channel
            channel.on_cancel(lambda: self._on_cancelled(term))
            prefetch, tag = self._subscription.prefetch, self._tags.make(self._subscription.queue)
            channel.consume(self._subscription.queue, prefetch, tag, lambda: on_consumed(channel))

        def on_consumed(channel: PikaChannel) -> None:
            stop_waiting()
            if term is not self._current:
                return
            if resubscribes_silently(version_of(connection)):
                channel.set_shared_limit()
            self._pauses = 0
            self._listener.on_subscribed(term.term)

        def on_closed(error: ChannelError) -> None:
            stop_waiting()
            if term is self._current and connection.is_open:
                self._on_closed(error)

        connection.open_channel(term, on_opened, on_closed)

    def _on_late(self, term: _TermChannel, may_leave: bool) -> None:
        request = f"a subscription to queue {self._subscription.queue!r}"
        if may_leave:
            self.keeper.liveness.leave(request)
        elif term is self._current:
            self._close_channel()
            self._retry_later(NotConnected(f"The broker did not answer the request for {request} in time."))

    def _on_cancelled(self, term: _TermChannel) -> None:
        """Declare the queue again: it was deleted, or lost its leader (https://www.rabbitmq.com/docs/consumer-cancel)."""
        if term is not self._current:
            return
        log.warning("consumer_cancelled", queue=self._subscription.queue, effect="subscribing again")
        self._close_channel()
        self._declare_again()
        self._retry_later(NotConnected(f"The broker ended the subscription to queue {self._subscription.queue!r}."))

    def _on_closed(self, error: ChannelError) -> None:
        self._declare_again()
        self._retry_later(channel_error(error, f"consuming from queue {self._subscription.queue!r}", "read"))

    def _declare_again(self) -> None:
        if self.session.declarer is not None:
            self.session.declarer.forget(self._subscription.requirements)

    def _retry_later(self, error: AmqpWorkerError) -> None:
        self._end_term(error)
        self._pauses += 1
        connection = self._connection

        def on_pause_over() -> None:
            if self._connection is connection and self._current is None:
                self._prepare()

        self.keeper.call_later(backoff(FIRST_PAUSE, MAX_PAUSE, self._pauses), on_pause_over)

    def _end_term(self, reason: AmqpWorkerError | ConnectionProblem) -> None:
        if self._current is not None:
            self._current.is_open = False
            self._current = None
        self._listener.on_term_ended(reason)

    def _release_token(self) -> None:
        self._close_channel()
        if self._current is not None:
            self._end_term(NotConnected("This scheduler has released the token."))

    def _close_channel(self) -> None:
        current = self._current
        if current is not None:
            current.is_open = False
            if current.channel is not None:
                current.channel.close()

    def _acknowledge(self, term: int, deliveries: Sequence[Delivery]) -> None:
        current = self._current
        if current is None or current.term != term or current.channel is None or not current.channel.is_open:
            return
        for delivery in deliveries:
            current.channel.ack(delivery.tag, False)
        current.channel.flush()
