"""
The publishing side of a process: one connection that any number of threads use.

Decides when to connect and when to write, and bounds every wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from amqpworker.broker.address import Address
from amqpworker.broker.connection import Connection
from amqpworker.broker.connection_problem import ConnectionProblem
from amqpworker.broker.consumer_count import ConsumerCount, OnCount
from amqpworker.broker.io_thread import CLOSED, IOThread
from amqpworker.broker.lane import Lane
from amqpworker.broker.pending_publish import PendingPublish
from amqpworker.broker.publish_session import CALLS, COPIES, REPLIES, SENDS, Session
from amqpworker.errors import NotConnected
from amqpworker.settings import Settings

if TYPE_CHECKING:
    from amqpworker.client.calls import Calls

# After this many seconds without a write, what the broker has sent is read first: it may have closed the connection, and a
# process that was suspended would lose its first message.
READ_FIRST_AFTER = 1.0
READ_FIRST_SECONDS = 0.002
# While it closes, it checks this often whether it is needed after all.
JOIN_SLICE = 0.01


class Publisher:
    """
    Publishes with confirms and `mandatory`, from any thread, over one connection that is made at first use.

    The lanes: `sends` for messages of users, `calls` for messages with a reply, `copies` for what replaces a delivery,
    `replies` for the replies to calls.
    """

    def __init__(self, addresses: Sequence[Address], settings: Settings, calls: Calls) -> None:
        self.io = IOThread("publisher", addresses, settings, self)
        self.session = Session(self.io, settings, calls)
        self.sends, self.calls, self.copies, self.replies = self._lanes = tuple(
            Lane(purpose, self.session, self._on_submitted) for purpose in (SENDS, CALLS, COPIES, REPLIES)
        )
        self._questions = ConsumerCount()
        self._started = self._closed = self._ever_open = False
        self._written_at = 0.0
        self._reads_first = False

    # ---- from any thread --------------------------------------------------------------------------------------------

    def _on_submitted(self, pending: PendingPublish, urgent: bool) -> None:
        """Have a publication of a lane written; if the I/O thread has ended, fail it."""
        if not self._started:
            self.start()
        if urgent or not self.io.is_ticking:
            self.io.wake()
        if self.io.has_ended:
            # The I/O thread may have checked the lanes before this was added, so nothing else ends it. While the thread
            # runs, it does: it may be writing it.
            pending.finish(NotConnected(CLOSED if self._closed else self.io.end_reason))

    def start(self) -> None:
        """Connect now instead of at the first publication; does nothing after `close`."""
        # In this order: a signal handler in between starts it as well, which is harmless, and does not wait in vain.
        self.io.start()
        self._started = True

    def count_consumers(self, queue: str, on_count: OnCount) -> None:
        """Call `on_count`, in the I/O thread, with how many consumers a queue has; with None if that cannot be known."""
        self._questions.waiting.append((queue, on_count))
        self.io.wake()

    def consumers_of(self, queue: str, timeout: float) -> int | None:
        """Return how many consumers a queue has; None if that is not known within `timeout` seconds."""
        if not self.connected:
            return None
        answer: SimpleQueue[int | None] = SimpleQueue()
        self.count_consumers(queue, answer.put)
        try:
            return answer.get(timeout=timeout)
        except Empty:
            return None

    @property
    def broken(self) -> bool:
        """Whether the I/O thread has ended without `retire` or `close`."""
        return self.io.has_ended and not self.io.is_leaving

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self.session.connection is not None

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits for a confirm."""
        return all(lane.is_idle for lane in self._lanes)

    def close(self, timeout: float, needed: Callable[[], bool] = lambda: False) -> bool:
        """
        Wait for outstanding confirms, then close; what is not confirmed by then fails, and this returns false.

        While it is `needed`, as by a call that waits for its reply, it stays open, and closes itself after that.
        """
        until = time.monotonic() + timeout
        self.io.retire(needed)
        while not self.io.join(JOIN_SLICE):
            if time.monotonic() >= until:
                break
            if self.is_idle and needed():
                return True
        confirmed = self.is_idle
        if not (confirmed and needed()):
            self._closed = True
            self.io.stop(1.0)
        return confirmed

    # ---- in the I/O thread ------------------------------------------------------------------------------------------

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
        self._questions.on_lost()
        # A broker that was once reached is waited for, whatever it reports while it starts.
        permanent = problem.kind != "unreachable" and not self._ever_open
        for lane in self._lanes:
            lane.on_lost(problem, permanent or self.io.has_ended or self._closed)
        if not self.is_idle:
            self.io.wake()

    def on_wake(self) -> None:
        """Write what waits."""
        connection = self.session.connection
        if self._questions.waiting and connection is not None:
            self._questions.ask(connection)
        if connection is None or not connection.accepts_messages:
            return
        now = time.monotonic()
        if now - self._written_at > READ_FIRST_AFTER and connection.has_unread:
            if not self._reads_first:
                self._reads_first = True
                self.io.call_later(READ_FIRST_SECONDS, self._on_read)
            return
        for lane in self._lanes:
            if lane.write():
                self._written_at = now

    def _on_read(self) -> None:
        self._reads_first = False
        self._written_at = time.monotonic()
        self.on_wake()

    def on_tick(self) -> bool:
        """End what is past its deadline, and write what was not urgent."""
        self.on_wake()
        now = time.monotonic()
        for lane in self._lanes:
            lane.on_tick(now)
        return not self.is_idle
