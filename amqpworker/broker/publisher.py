"""
The publishing side of a process: one connection, any number of threads that call it.

Decides when the connection is made and when it is written to, and bounds every wait. What is published, for four purposes
that have channels of their own, and what is published again, is up to each `lane`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from amqpworker.broker.address import Address
from amqpworker.broker.connection_errors import ConnectionProblem
from amqpworker.broker.consumer_count import ConsumerCount, Question
from amqpworker.broker.io_thread import CLOSED, IOThread
from amqpworker.broker.lane import Lane
from amqpworker.broker.pending_publish import PendingPublish
from amqpworker.broker.pika_connection import PikaConnection
from amqpworker.broker.publish_session import CALLS, COPIES, REPLIES, SENDS, OnReply, Session
from amqpworker.errors import NotConnected
from amqpworker.settings import Settings

__all__ = ["Publisher"]

# After this long without a write, what the broker has sent is read first: it may have closed the connection, and a process
# that was suspended would write its first message into nothing.
QUIET = 1.0
READ_FIRST = 0.002
# While it closes, it looks this often whether others need it.
JOIN_SLICE = 0.01


class Publisher:
    """
    Publishes with confirms and `mandatory`, from any thread, over one connection that is made at first use.

    `sends` is for what users send, `calls` for what is replied to, `copies` for what takes a delivery's place, `replies` for
    the replies to calls.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        settings: Settings,
        on_reply: OnReply,
    ) -> None:
        self._io = IOThread("publisher", addresses, settings, self)
        self.session = Session(self._io, settings, on_reply)
        self.sends, self.calls, self.copies, self.replies = self._lanes = tuple(
            Lane(purpose, self.session, self._submitted) for purpose in (SENDS, CALLS, COPIES, REPLIES)
        )
        self._questions = ConsumerCount()
        self._started = self._closed = self._ever_open = False
        self._written_at = 0.0
        self._reads_first = False

    # ---- from any thread --------------------------------------------------------------------------------------------

    def _submitted(self, outgoing: PendingPublish, urgent: bool) -> None:
        """Have what was put into a lane written; where nothing goes out any more, end it."""
        if not self._started:
            self.start()
        if urgent or not self._io.ticking:
            self._io.wake()
        if self._io.ended:
            # The last look into the lanes was perhaps before it came in: nobody else will end it. While the thread is
            # there it does: it may be writing it.
            outgoing.finish(NotConnected(CLOSED if self._closed else self._io.end_text))

    def start(self) -> None:
        """Connect now, instead of at the first publication; what was closed stays closed."""
        # In this order: a signal handler in between starts it as well, which does no harm, and does not wait for nothing.
        self._io.start()
        self._started = True

    def on_beat(self, beat: Callable[[], None]) -> None:
        """Have `beat` called about once in a second by the I/O thread; before it starts."""
        self._io.beat = beat

    def belongs_to(self, owner: str) -> None:
        """Name the connection after an app, if the settings give no name to it; before it starts."""
        self._io.owner = owner

    def wake(self) -> None:
        """Write what has gathered now."""
        self._io.wake()

    def consumers_of(self, queue: str, timeout: float) -> int | None:
        """Return how many consumers a queue has; None if that cannot be known within `timeout` seconds."""
        if not self.connected:
            return None
        question = Question(queue)
        self._questions.waiting.append(question)
        self._io.wake()
        question.ended.wait(timeout)
        return question.consumers

    @property
    def broken(self) -> bool:
        """Whether the I/O thread has ended though nobody asked it to."""
        return self._io.ended and not self._io.leaving

    @property
    def over(self) -> bool:
        """Whether it was closed, or has broken: another publisher has to be made."""
        return self._io.over

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self.session.connection is not None

    @property
    def problem(self) -> ConnectionProblem | None:
        """Why there is no connection, if that is known."""
        return self.session.problem

    def idle(self) -> bool:
        """Whether nothing waits for a confirm."""
        return all(lane.idle for lane in self._lanes)

    def retire(self, needed: Callable[[], bool] | None = None) -> None:
        """Close as soon as all is confirmed and it is not `needed`, without waiting for that; from any place."""
        self._io.retire(needed)

    def close(self, timeout: float, needed: Callable[[], bool] = lambda: False) -> bool:
        """
        Wait for what is under way, then close; what is not confirmed by then fails. False: it was not all confirmed.

        While it is `needed`, as by a call that waits for its answer, it stays open, and closes itself after that.
        """
        until = time.monotonic() + timeout
        self.retire(needed)
        while not self._io.join(JOIN_SLICE):
            if time.monotonic() >= until:
                break
            if self.idle() and needed():
                return True
        confirmed = self.idle()
        if not (confirmed and needed()):
            self._closed = True
            self._io.stop(1.0)
        return confirmed

    def forget(self) -> None:
        """In a forked child: let go of the parent's connection."""
        self._io.forget()

    # ---- in the I/O thread ------------------------------------------------------------------------------------------

    def opened(self, connection: PikaConnection) -> None:
        """Write what waits, and have what it needs declared at the same time."""
        self._ever_open = True
        self._reads_first = False
        self._written_at = time.monotonic()
        self.session.begin(connection)
        assert self.session.declarer is not None
        for requirement in {one for lane in self._lanes for one in lane.requirements()}:
            self.session.declarer.ensure(requirement, lambda _: None)

    def lost(self, problem: ConnectionProblem) -> None:
        """Have the lanes keep what may be published on the next connection, if there can be one."""
        self.session.end(problem)
        self._questions.end()
        # A broker that was there before is waited for, whatever it says while it starts.
        mistake = problem.kind != "away" and not self._ever_open
        for lane in self._lanes:
            lane.lost(problem, mistake or self._io.ended or self._closed)
        if not self.idle():
            self._io.wake()

    def woken(self) -> None:
        """Write what has gathered."""
        connection = self.session.connection
        if self._questions.waiting and connection is not None:
            self._questions.ask(connection)
        if connection is None or not connection.accepts_messages:
            return
        now = time.monotonic()
        if now - self._written_at > QUIET and connection.has_unread:
            if not self._reads_first:
                self._reads_first = True
                self._io.call_later(READ_FIRST, self._has_read)
            return
        for lane in self._lanes:
            if lane.write():
                self._written_at = now

    def _has_read(self) -> None:
        self._reads_first = False
        self._written_at = time.monotonic()
        self.woken()

    def tick(self) -> bool:
        """End what has waited for too long, and write what was not urgent."""
        self.woken()
        now = time.monotonic()
        for lane in self._lanes:
            lane.tick(now)
        return not self.idle()
