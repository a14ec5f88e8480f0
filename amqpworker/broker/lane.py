"""
Publications of one purpose: those that wait, and the channel that they go out by.

Decides what is published again and when: what lost its confirm, if it may run twice, and what a channel refused, on a
newer one. Each purpose has channels of its own, so that what closes one harms no other purpose.
"""

from __future__ import annotations

import copy
import time
from collections import deque
from collections.abc import Callable, Iterator

from pika.exceptions import NoFreeChannels

from amqpworker.broker.channel import Prepared, prepare
from amqpworker.broker.connection_errors import ConnectionProblem, channel_error, exchange_of, max_message_size
from amqpworker.broker.declarer import Declarer
from amqpworker.broker.pending_publish import PendingPublish, WhenDone
from amqpworker.broker.publish_channel import PublishChannel
from amqpworker.broker.publish_errors import (
    ResendDecision,
    after_close,
    not_taken,
    refusal_pause,
    too_large,
    unconfirmed,
    unroutable,
)
from amqpworker.broker.publish_session import Purpose, Session
from amqpworker.broker.quarantine import Quarantine
from amqpworker.errors import AmqpWorkerError, InvalidArguments, NotConnected, Unroutable
from amqpworker.log.logger import get_logger
from amqpworker.model.message import Publication
from amqpworker.routing.queues import Requirement

__all__ = ["Lane"]

log = get_logger(__name__)

# A channel that was closed as soon as it was open is not opened again at once.
CHANNEL_PAUSE = 0.5
# What is needed and could not be declared is tried again, if that may pass: a queue's leader is elected just now, perhaps.
DECLARE_PAUSE = 0.5
# Channels that are left and stay open, since something on them was never confirmed: its queue has no majority.
MOST_OLDER = 4


class Lane:
    """The publications of one purpose. `publish` and `submit` may be called by any thread, the rest by the I/O thread."""

    def __init__(self, purpose: Purpose, session: Session, submitted: Callable[[PendingPublish, bool], None]) -> None:
        self.purpose = purpose
        self.resend = purpose.resend and session.settings.resend
        self._session = session
        self._submitted = submitted
        self._timeout = session.settings.send_timeout
        self._inbox: deque[PendingPublish] = deque()
        self._moving = False
        # The channel number that frames are made for in the caller's thread; another one costs making them again.
        self._number = 1
        self._held: set[PendingPublish] = set()
        self._paused: list[tuple[float, PendingPublish]] = []
        self._quarantine = Quarantine(self, session, purpose.replies)
        self._current: PublishChannel | None = None
        self._older: list[PublishChannel] = []
        self._opening = False
        self._opened_at = 0.0

    # ---- from any thread --------------------------------------------------------------------------------------------

    def publish(
        self,
        publication: Publication,
        requirements: tuple[Requirement, ...] = (),
        timeout: float | None = None,
        when_done: WhenDone | None = None,
        urgent: bool = True,
        resend: bool | None = None,
    ) -> PendingPublish:
        """
        Put a publication on its way.

        What is not `urgent` may wait for the next that is, or for the next check of deadlines: one write for many.
        `resend` takes the place of what the purpose has.

        Raises:
            InvalidArguments: a property or header cannot be carried, or the body is too large for the broker.
        """
        outgoing = self.outgoing(publication, requirements, timeout, when_done)
        if resend is not None:
            outgoing.resend = resend
        self._inbox.append(outgoing)
        self._submitted(outgoing, urgent)
        return outgoing

    def outgoing(
        self,
        publication: Publication,
        requirements: tuple[Requirement, ...] = (),
        timeout: float | None = None,
        when_done: WhenDone | None = None,
    ) -> PendingPublish:
        """
        Return a publication that is ready to be submitted.

        Raises:
            InvalidArguments: as `publish`.
        """
        session = self._session
        if len(publication.body) > session.max_body:
            raise too_large(publication, session.max_body)
        try:
            prepared = prepare(publication, session.frame_max, self._number)
        except ValueError as error:
            raise InvalidArguments(f"The message cannot be carried by AMQP: {error}.") from error
        deadline = time.monotonic() + (self._timeout if timeout is None else timeout)
        return PendingPublish(prepared, deadline, requirements, when_done, self.resend)

    def submit(self, outgoing: PendingPublish) -> None:
        """Put a publication on its way that `pending_publish` has made."""
        self._inbox.append(outgoing)
        self._submitted(outgoing, True)

    @property
    def idle(self) -> bool:
        """Whether nothing is under way that a caller waits for."""
        # In the order in which a message goes through them, so that one that moves on meanwhile is seen further down.
        if self._inbox or self._moving or self._paused or self._held or self._quarantine.busy:
            return False
        return not any(one.busy for one in self._channels())

    def requirements(self) -> set[Requirement]:
        """Return what must exist for what waits."""
        return {one for outgoing in list(self._inbox) for one in outgoing.requirements}

    def overdue(self, before: float) -> int:
        """Return how many publications wait for a confirm that was to come before this moment (monotonic)."""
        return sum(one.overdue(before) for one in self._channels())

    def _channels(self) -> Iterator[PublishChannel]:
        if (current := self._current) is not None:
            yield current
        yield from list(self._older)

    # ---- writing ----------------------------------------------------------------------------------------------------

    def write(self) -> bool:
        """Write what has gathered, as far as the bounds allow; true if there was something. The broker takes messages."""
        batch: list[Prepared] = []
        if (channel := self._current) is not None:
            self._moving = True
            batch = self._take_batch(channel)
            self._moving = False
            if batch:
                channel.write(batch)
        elif self._inbox:
            self._open()
        self._quarantine.start()
        return bool(batch)

    def _take_batch(self, channel: PublishChannel) -> list[Prepared]:
        batch: list[Prepared] = []
        inbox, number, frame_max = self._inbox, self._number, self._session.frame_max
        quarantined = self._quarantine.exchanges
        assert (declarer := self._session.declarer) is not None
        declared = declarer.declared
        count, size = channel.room()
        while inbox and count > 0 and size > 0:
            outgoing = inbox.popleft()
            if outgoing.done:
                continue
            if outgoing.requirements and not declared.issuperset(outgoing.requirements):
                self._hold(outgoing, declarer)
                continue
            prepared = outgoing.prepared
            if quarantined and prepared.publication.exchange in quarantined:
                self._quarantine.add(outgoing)
                continue
            if outgoing.wanted is not None and not outgoing.is_wanted():
                continue
            if prepared.channel != number or prepared.frame_max > frame_max:
                if not self.fit(outgoing, number):
                    continue
                prepared = outgoing.prepared
            channel.add(outgoing)
            batch.append(prepared)
            count -= 1
            size -= outgoing.size
        return batch

    def fit(self, outgoing: PendingPublish, number: int) -> bool:
        """Marshal for a channel and the frames of this connection; false if its headers do not fit into one."""
        session = self._session
        try:
            outgoing.prepared = prepare(outgoing.prepared.publication, session.frame_max, number)
        except ValueError as error:
            outgoing.finish(InvalidArguments(f"This broker cannot carry the message: {error}."))
            return False
        return True

    def _hold(self, outgoing: PendingPublish, declarer: Declarer) -> None:
        """Hold a publication back until what it needs exists."""
        missing = next(one for one in outgoing.requirements if one not in declarer.declared)
        self._held.add(outgoing)

        def answer(error: AmqpWorkerError | None) -> None:
            if outgoing not in self._held:
                return
            if error is None:
                self._inbox.append(outgoing)
                self._session.io.wake()
            elif isinstance(error, Unroutable | NotConnected):
                outgoing.problem = error
                self._paused.append((time.monotonic() + DECLARE_PAUSE, outgoing))
            else:
                outgoing.finish(copy.copy(error))  # one instance would be raised by many threads
            self._held.discard(outgoing)

        declarer.ensure(missing, answer)

    # ---- channels ---------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        session = self._session
        if not self._opening and session.connection is not None and session.connection.is_open:
            self._opening = True
            PublishChannel(next(session.serials), self, self.purpose.replies).open(
                session.connection, session.io.liveness
            )

    def on_ready(self, channel: PublishChannel) -> None:
        """Publish on this channel from now on."""
        self._opening = False
        self._current = channel
        self._number = channel.number
        self._opened_at = time.monotonic()
        self._session.io.wake()

    def on_confirmed(self, channel: PublishChannel) -> None:  # noqa: ARG002 - a method of every user of channels
        """Go on writing: there is room again."""
        connection = self._session.connection
        if self._inbox and connection is not None and connection.accepts_messages:
            self.write()

    def on_refused(self, channel: PublishChannel, outgoing: PendingPublish, ack: bool) -> None:
        """Publish again, on a newer channel, what this one does not take; what no queue takes has failed."""
        session = self._session
        if ack:
            if outgoing.requirements and session.declarer is not None:
                # A queue that we declared is gone: the next message for it declares it again.
                session.declarer.forget(outgoing.requirements)
            outgoing.finish(unroutable(outgoing))
            return
        outgoing.refusals += 1
        outgoing.channel = channel.serial
        if outgoing.refusals > 1 and session.is_bounded(outgoing.requirements):
            outgoing.finish(not_taken(outgoing, bounded=True))
            return
        if outgoing.refusals == 1:
            what = outgoing.prepared.publication
            log.info(
                "publication_refused", exchange=what.exchange, queue=what.routing_key, effect="publishing it again"
            )
        self._paused.append((time.monotonic() + refusal_pause(outgoing.refusals), outgoing))
        self._go_on(time.monotonic())

    def _go_on(self, now: float) -> None:
        """Publish what has paused for long enough; what was refused goes by a channel that is newer than its refusal."""
        due = [one for until, one in self._paused if until <= now]
        if not due:
            return
        self._inbox.extend(due)
        self._paused = [(until, one) for until, one in self._paused if until > now]
        current = self._current
        refused = any(current is not None and one.refusals and one.channel >= current.serial for one in due)
        if current is not None and refused and len(self._older) < MOST_OLDER:
            self._older.append(current)
            self._current = None
        self._session.io.wake()

    def on_closed(self, channel: PublishChannel, error: BaseException) -> None:
        """Decide what becomes of what was in flight, and open another channel for what waits."""
        if channel in self._older:
            self._older.remove(channel)
        else:
            short = self._opening or time.monotonic() < self._opened_at + CHANNEL_PAUSE
            self._current = None
            self._opening = short
            if short:
                self._session.io.call_later(CHANNEL_PAUSE, self._open_again)
            if isinstance(error, NoFreeChannels):
                missing = channel_error(error, f"the {self.purpose.name} of this process", "write")
                log.error("publish_channel_missing", purpose=self.purpose.name, reason=str(missing))
                while self._inbox:
                    self._inbox.popleft().finish(copy.copy(missing))
                return
            log.warning("publish_channel_closed", purpose=self.purpose.name, reason=str(error))
        self.after_close(channel, channel.take_in_flight(), error)

    def _open_again(self) -> None:
        self._opening = False
        self._session.io.wake()

    def after_close(self, channel: PublishChannel, in_flight: list[PendingPublish], error: BaseException) -> None:
        """End what is to blame for the end of a channel, and publish the rest again if that is wanted."""
        session = self._session
        told = channel_error(error, "publishing", "write")
        if isinstance(told, Unroutable) and session.declarer is not None and any(one.requirements for one in in_flight):
            session.declarer.forget()  # an exchange that we declared may be gone
        session.max_body = max_message_size(error) or session.max_body
        decided = after_close(told, exchange_of(error), session.max_body, in_flight)
        if decided.quarantined is not None:
            self._quarantine.exchanges.add(decided.quarantined)
        session.on_channel_lost(channel.serial)
        for outgoing, verdict in reversed(decided.verdicts):
            self._act(outgoing, verdict, decided.error)
        if again := sum(1 for one in in_flight if not one.done):
            log.info("publications_resent", count=again, reason=str(decided.error))
        session.io.wake()

    def _act(self, outgoing: PendingPublish, verdict: ResendDecision, error: AmqpWorkerError) -> None:
        outgoing.returned = None
        match verdict:
            case ResendDecision.FAILS:
                outgoing.finish(type(error)(str(error)))
            case ResendDecision.UNKNOWN:
                outgoing.finish(unconfirmed(str(error)))
            case ResendDecision.AGAIN:
                outgoing.lost = outgoing.lost or str(error)
                self._inbox.appendleft(outgoing)
            case ResendDecision.ALONE:
                outgoing.alone = not outgoing.lost
                outgoing.lost = outgoing.lost or str(error)
                self._quarantine.add(outgoing)

    def adopt(self, channel: PublishChannel) -> None:
        """Keep a channel for the reply that is expected on it; `tick` closes it."""
        self._older.append(channel)

    def on_reply(self, correlation_id: str, body: bytes) -> None:
        """Hand on the reply to a call."""
        self._session.on_reply(correlation_id, body)

    # ---- deadlines, and the connection ------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """End what has waited for too long, and close the channels on which nothing is waited for."""
        self._go_on(now)
        waiting = [*self._inbox, *self._held, *self._quarantine.waiting, *(one for _, one in self._paused)]
        for outgoing in waiting:
            if outgoing.deadline <= now and not outgoing.done:
                outgoing.finish(self._not_sent(outgoing))
        while self._inbox and self._inbox[0].done:
            self._inbox.popleft()
        self._held = {one for one in self._held if not one.done}
        self._paused = [(until, one) for until, one in self._paused if not one.done]
        error = None if self.purpose.patient else self._session.not_confirmed
        for channel in (*self._channels(), *self._quarantine.channels):
            channel.expire(now, error)
        self._quarantine.tidy()
        for channel in [one for one in self._older if not one.busy]:
            if not self._session.replies_expected(channel.serial):
                self._older.remove(channel)
                channel.close()

    def _not_sent(self, outgoing: PendingPublish) -> AmqpWorkerError:
        """Return the error of a publication that was not confirmed in time and is not in flight either."""
        if outgoing.lost:
            return unconfirmed(outgoing.lost)
        if outgoing.refusals:
            return not_taken(outgoing, bounded=False)
        return copy.copy(outgoing.problem) if outgoing.problem is not None else self._session.not_sent()

    def lost(self, problem: ConnectionProblem, hopeless: bool) -> None:
        """Keep what was not confirmed for the next connection, if it may be published again; end it if there is none."""
        channels = [*self._channels(), *self._quarantine.channels]
        # First: once it is taken, what was in flight alone looks as if it had never been written.
        unwritten = [*self._quarantine.waiting, *(one for _, one in self._paused), *self._held]
        in_flight = [outgoing for channel in channels for outgoing in channel.take_in_flight()]
        again = [one for one in in_flight if one.resend and not hopeless]
        for outgoing in again:
            outgoing.returned, outgoing.lost = None, outgoing.lost or problem.text
        # Before they are held no more: `close` must not take us for idle in between.
        self._inbox.extendleft(reversed([*again, *unwritten]))
        self._quarantine.clear()
        self._held.clear()
        self._paused.clear()
        self._older.clear()
        self._current, self._opening = None, False
        for channel in channels:
            self._session.on_channel_lost(channel.serial)
        for outgoing in set(in_flight).difference(again):
            outgoing.finish(unconfirmed(problem.text))
        if again:
            log.info("publications_resent", count=len(again), reason=problem.text)
        while hopeless and self._inbox:
            outgoing = self._inbox.popleft()
            outgoing.finish(unconfirmed(outgoing.lost) if outgoing.lost else problem.error())
