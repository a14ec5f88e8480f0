"""
What publishes on one connection, in a thread or in an event loop: its lanes, and when they write.

Its keeper makes the connection, and calls this in its thread or event loop.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from amqpworker.broker.connection import Connection
from amqpworker.broker.connection_problem import ConnectionProblem
from amqpworker.broker.consumer_count import ConsumerCount, OnCount
from amqpworker.broker.keeper import ConnectionKeeper
from amqpworker.broker.lane import Lane
from amqpworker.broker.pending_publish import PendingPublish
from amqpworker.broker.publish_session import CALLS, CHECKS, COPIES, REPLIES, SENDS, Session
from amqpworker.errors import NotConnected
from amqpworker.settings import Settings

if TYPE_CHECKING:
    from amqpworker.client.calls import Calls

# After this many seconds without a write, what the broker has sent is read first: it may have closed the connection, and a
# process that was suspended would lose its first message.
READ_FIRST_AFTER = 1.0
READ_FIRST_SECONDS = 0.002


class PublishCore:
    """
    The publications of one connection.

    Its lanes: `sends` for messages of users, `calls` for messages with a reply, `copies` for what replaces a delivery, `replies`
    for the replies to calls, `checks` for what only shows whether messages could be sent.
    """

    def __init__(self, keeper: ConnectionKeeper[Any], settings: Settings, calls: Calls) -> None:
        self.keeper = keeper
        self.session = Session(keeper, settings, calls)
        self.sends, self.calls, self.copies, self.replies, self.checks = self._lanes = tuple(
            Lane(purpose, self.session, self._on_submitted) for purpose in (SENDS, CALLS, COPIES, REPLIES, CHECKS)
        )
        self._consumer_count = ConsumerCount()
        self._started = False
        self._ever_open = False
        self._written_at = 0.0
        self._reads_first = False

    # ---- from any thread --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Connect now instead of at the first publication; does nothing after the close."""
        # In this order: a signal handler in between starts it as well, which is harmless, and does not wait in vain.
        self.keeper.start()
        self._started = True

    def _on_submitted(self, pending: PendingPublish, urgent: bool) -> None:
        """Have a publication of a lane written, with all others that are submitted until then."""
        keeper = self.keeper
        if not self._started:
            self.start()
        if urgent or not keeper.is_ticking:
            keeper.wake()
        if keeper.has_ended:
            # It may have checked the lanes before this was added, so nothing else ends it. Before its end it does: it may be
            # writing it.
            pending.finish(NotConnected(keeper.end_reason))

    @property
    def will_not_reconnect(self) -> bool:
        """Whether there is no other connection after this one."""
        raise NotImplementedError

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self.session.connection is not None

    @property
    def is_blocked(self) -> bool:
        """Whether the broker has an alarm and accepts no messages."""
        connection = self.session.connection
        return connection is not None and connection.is_blocked

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits for a confirm."""
        return all(lane.is_idle for lane in self._lanes)

    def count_consumers(self, queue: str, on_count: OnCount) -> None:
        """Call `on_count` with how many consumers a queue has, or with None if that cannot be known."""
        self._consumer_count.waiting.append((queue, on_count))
        self.keeper.wake()

    # ---- where the connection is kept --------------------------------------------------------------------------------

    def on_opened(self, connection: Connection) -> None:
        """Declare what the waiting publications require."""
        self._ever_open = True
        self._reads_first = False
        self._written_at = time.monotonic()
        self.session.on_opened(connection)
        assert self.session.declarer is not None
        for requirement in {one for lane in self._lanes for one in lane.requirements()}:
            self.session.declarer.ensure(requirement, lambda _: None)

    def on_lost(self, problem: ConnectionProblem) -> None:
        """Have the lanes keep what may be published on the next connection, if there may be one."""
        self.session.on_lost(problem)
        self._consumer_count.on_lost()
        # A broker that was once reached is waited for, whatever it reports while it starts.
        permanent = problem.kind != "unreachable" and not self._ever_open
        for lane in self._lanes:
            lane.on_lost(problem, permanent or self.will_not_reconnect)
        if not self.is_idle:
            self.keeper.wake()

    def on_wake(self) -> None:
        """Write what waits."""
        connection = self.session.connection
        if self._consumer_count.waiting and connection is not None:
            self._consumer_count.ask(connection)
        if connection is None or not connection.accepts_messages:
            return
        now = time.monotonic()
        if now - self._written_at > READ_FIRST_AFTER and connection.has_unread:
            if not self._reads_first:
                self._reads_first = True
                self.keeper.call_later(READ_FIRST_SECONDS, self._on_read)
            return
        for lane in self._lanes:
            if lane.write():
                self._written_at = now

    def _on_read(self) -> None:
        self._reads_first = False
        self._written_at = time.monotonic()
        self.on_wake()

    def on_tick(self) -> bool:
        """End what is past its deadline, and write what was not urgent; return whether anything is waited for."""
        self.on_wake()
        now = time.monotonic()
        for lane in self._lanes:
            lane.on_tick(now)
        return not self.is_idle
