"""
Publications of one purpose: those that wait, and the channel that they are published on.

Decides what is published again and when: what lost its confirm, if it may run twice, and what was nacked, on a newer
channel. Each purpose has channels of its own, so that a publication that closes one affects no other purpose.
"""

from __future__ import annotations

import copy
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain

from amqpworker.broker.channel_errors import channel_error, exchange_of, max_message_size
from amqpworker.broker.connection import ChannelError, NoChannelLeft
from amqpworker.broker.connection_problem import ConnectionProblem
from amqpworker.broker.declarer import Declarer
from amqpworker.broker.pending_publish import OnDone, PendingPublish
from amqpworker.broker.publish_channel import PublishChannel
from amqpworker.broker.publish_errors import (
    ResendDecision,
    decide_after_close,
    nacked,
    pause_after_nacks,
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

log = get_logger(__name__)

# A channel that was closed as soon as it was open is opened again after this many seconds.
CHANNEL_PAUSE = 0.5
# A requirement that could not be declared is tried again if the reason may be temporary, such as an election of a leader.
DECLARE_PAUSE = 0.5
# Older channels stay open while something on them is not confirmed, such as for a queue without a majority.
MAX_OLDER = 4


class Lane:
    """The publications of one purpose. Any thread may call `publish` and `submit`; the rest is for that of the connection."""

    def __init__(
        self, purpose: Purpose, session: Session, on_submitted: Callable[[PendingPublish, bool], None]
    ) -> None:
        self.purpose = purpose
        self.session = session
        self._resend = purpose.resend and session.settings.resend
        self._on_submitted = on_submitted
        self._timeout = session.settings.send_timeout
        self._inbox: deque[PendingPublish] = deque()
        self._moving = False
        # Callers encode for this channel number; if the channel has another by then, `write` encodes again.
        self._number = 1
        self._parked: dict[Requirement, list[PendingPublish]] = {}
        self._paused: list[tuple[float, PendingPublish]] = []
        self._quarantine = Quarantine(self)
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
        on_done: OnDone | None = None,
        urgent: bool = True,
        resend: bool | None = None,
    ) -> PendingPublish:
        """
        Publish without waiting for the confirm.

        What is not `urgent` may wait for the next that is, or for the next check of deadlines: one write for many.
        `resend` overrides that of the purpose. Raises InvalidArguments if a property or header cannot be encoded, or if the
        body is too large for the broker.
        """
        pending = self.make_pending(publication, requirements, timeout, on_done)
        if resend is not None:
            pending.resend = resend
        self._inbox.append(pending)
        self._on_submitted(pending, urgent)
        return pending

    def make_pending(
        self,
        publication: Publication,
        requirements: tuple[Requirement, ...] = (),
        timeout: float | None = None,
        on_done: OnDone | None = None,
    ) -> PendingPublish:
        """Encode a publication, to be submitted later; raises what `publish` raises."""
        session = self.session
        if len(publication.body) > session.max_body:
            raise too_large(publication, session.max_body)
        seconds = self._timeout if timeout is None else timeout
        pending = PendingPublish(publication, seconds, requirements, on_done, self._resend)
        try:
            pending.encode(self._number, session.frame_max)
        except ValueError as error:
            raise InvalidArguments(f"The message cannot be encoded for AMQP: {error}.") from error
        return pending

    def submit(self, pending: PendingPublish, urgent: bool = True) -> None:
        """Publish what `make_pending` has returned."""
        self._inbox.append(pending)
        self._on_submitted(pending, urgent)

    @property
    def is_idle(self) -> bool:
        """Whether no caller waits for a publication."""
        # In the order in which a message passes through them, so that one that moves meanwhile is seen further down.
        if self._inbox or self._moving or self._paused or self._quarantine.is_busy or any(list(self._parked.values())):
            return False
        return not any(one.is_busy for one in self._channels())

    def requirements(self) -> set[Requirement]:
        """Return what must exist before what waits can be published."""
        return {one for pending in list(self._inbox) for one in pending.requirements}

    def overdue(self, before: float) -> int:
        """Return how many publications are not confirmed whose deadline was before this moment (monotonic)."""
        return sum(one.overdue(before) for one in self._channels())

    def _channels(self) -> list[PublishChannel]:
        current = self._current
        return [*self._older] if current is None else [current, *self._older]

    # ---- writing ----------------------------------------------------------------------------------------------------

    def write(self) -> bool:
        """Write what waits, within the bounds, to a broker that accepts messages; return whether anything was written."""
        batch: list[bytes] = []
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

    def _take_batch(self, channel: PublishChannel) -> list[bytes]:
        batch: list[bytes] = []
        inbox, number, frame_max = self._inbox, self._number, self.session.frame_max
        quarantined = self._quarantine.exchanges
        declarer = self.session.declarer
        assert declarer is not None
        count, size = channel.room()
        while inbox and count > 0 and size > 0:
            pending = inbox.popleft()
            if pending.done:
                continue
            if pending.requirements and not declarer.declared.issuperset(pending.requirements):
                self._park(pending, declarer)
                continue
            if quarantined and pending.publication.exchange in quarantined:
                self._quarantine.add(pending)
                continue
            if pending.wanted is not None and not pending.is_wanted():
                continue
            encoded_for_another = pending.channel_number != number or pending.frame_max > frame_max
            if encoded_for_another and not self.encode_again(pending, number):
                continue
            channel.add(pending)
            batch.append(pending.data)
            count -= 1
            size -= pending.size
        return batch

    def encode_again(self, pending: PendingPublish, number: int) -> bool:
        """Encode for a channel and the frame size of this connection; false if the headers do not fit into a frame."""
        try:
            pending.encode(number, self.session.frame_max)
        except ValueError as error:
            pending.finish(InvalidArguments(f"The message does not fit the frames of this broker: {error}."))
            return False
        return True

    def _park(self, pending: PendingPublish, declarer: Declarer) -> None:
        """Have a publication wait for a requirement; those that wait for one keep their order, before what is newer."""
        missing = next(one for one in pending.requirements if one not in declarer.declared)
        parked = self._parked.setdefault(missing, [])
        parked.append(pending)
        if len(parked) > 1:
            return

        def on_declared(error: AmqpWorkerError | None) -> None:
            if self._parked.get(missing) is not parked:
                return
            if error is None:
                self._inbox.extendleft(reversed(parked))
                self.session.keeper.wake()
            else:
                for one in parked:
                    self._on_not_declared(one, error)
            del self._parked[missing]

        declarer.ensure(missing, on_declared)

    def _on_not_declared(self, pending: PendingPublish, error: AmqpWorkerError) -> None:
        if isinstance(error, Unroutable | NotConnected):
            pending.problem = error
            self._paused.append((time.monotonic() + DECLARE_PAUSE, pending))
        else:
            pending.finish(copy.copy(error))  # else many threads would raise one instance

    def _all_parked(self) -> Iterator[PendingPublish]:
        return chain.from_iterable(self._parked.values())

    # ---- channels ---------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        session = self.session
        if not self._opening and session.connection is not None and session.connection.is_open:
            self._opening = True
            PublishChannel(self, self).open()

    def on_ready(self, channel: PublishChannel) -> None:
        """Publish on this channel from now on."""
        self._opening = False
        self._current = channel
        self._number = channel.number
        self._opened_at = time.monotonic()
        self.session.keeper.wake()

    def on_confirmed(self, channel: PublishChannel) -> None:  # noqa: ARG002 - a method of every user of a channel
        """Continue to write: there is room again."""
        connection = self.session.connection
        if self._inbox and connection is not None and connection.accepts_messages:
            self.write()

    def on_refused(self, pending: PendingPublish, ack: bool) -> None:
        """Fail what was returned (and acked); publish again, on a newer channel, what was nacked."""
        session = self.session
        if ack:
            if pending.declares and session.declarer is not None and not self.purpose.expects_return:
                # A queue that we declared was deleted: the next message for it declares it again.
                session.declarer.forget(pending.requirements)
            pending.finish(unroutable(pending))
            return
        pending.nacks += 1
        if pending.nacks > 1 and pending.is_bounded:
            pending.finish(nacked(pending, bounded=True))
            return
        if pending.nacks == 1:
            what = pending.publication
            log.info("publication_nacked", exchange=what.exchange, queue=what.routing_key, effect="publishing it again")
        self._paused.append((time.monotonic() + pause_after_nacks(pending.nacks), pending))
        self._resend_paused(time.monotonic())

    def _resend_paused(self, now: float) -> None:
        """Publish what has paused long enough; what was nacked needs a channel that is newer than its nack."""
        due = [one for until, one in self._paused if until <= now]
        if not due:
            return
        self._inbox.extend(due)
        self._paused = [(until, one) for until, one in self._paused if until > now]
        current = self._current
        needs_newer = any(current is not None and one.nacks and one.channel >= current.serial for one in due)
        if current is not None and needs_newer and len(self._older) < MAX_OLDER:
            self._older.append(current)
            self._current = None
        self.session.keeper.wake()

    def on_closed(self, channel: PublishChannel, error: ChannelError) -> None:
        """Decide what happens to what was in flight, and open another channel for what waits."""
        if channel in self._older:
            self._older.remove(channel)
        else:
            short = self._opening or time.monotonic() < self._opened_at + CHANNEL_PAUSE
            self._current = None
            self._opening = short
            if short:
                self.session.keeper.call_later(CHANNEL_PAUSE, self._open_again)
            if isinstance(error, NoChannelLeft):
                missing = channel_error(error, f"the {self.purpose.name} of this process", "write")
                log.error("publish_channel_missing", purpose=self.purpose.name, reason=str(missing))
                while self._inbox:
                    self._inbox.popleft().finish(copy.copy(missing))
                return
            log.warning("publish_channel_closed", purpose=self.purpose.name, reason=str(error))
        self.after_close(channel, channel.take_in_flight(), error)

    def _open_again(self) -> None:
        self._opening = False
        self.session.keeper.wake()

    def after_close(self, channel: PublishChannel, in_flight: list[PendingPublish], error: ChannelError) -> None:
        """Fail the messages at fault for the close of a channel, and publish the others again if allowed."""
        session = self.session
        cause = channel_error(error, "publishing", "write")
        if isinstance(cause, Unroutable) and session.declarer is not None and any(one.declares for one in in_flight):
            session.declarer.forget()  # an exchange that we declared may have been deleted
        session.max_body = max_message_size(error) or session.max_body
        result = decide_after_close(cause, exchange_of(error), session.max_body, in_flight)
        if result.quarantined is not None:
            self._quarantine.exchanges.add(result.quarantined)
        session.calls.fail_requests_on(channel.serial)
        for pending, decision in reversed(result.decisions):
            self._apply(pending, decision, result.error)
        if again := sum(1 for one in in_flight if not one.done):
            log.info("publications_resent", count=again, reason=str(result.error))
        session.keeper.wake()

    def _apply(self, pending: PendingPublish, decision: ResendDecision, error: AmqpWorkerError) -> None:
        pending.returned = None
        match decision:
            case ResendDecision.FAIL:
                pending.finish(type(error)(str(error)))
            case ResendDecision.UNKNOWN:
                pending.finish(unconfirmed(str(error)))
            case ResendDecision.RESEND:
                pending.lost_reason = pending.lost_reason or str(error)
                self._inbox.appendleft(pending)
            case ResendDecision.RESEND_ALONE:
                pending.may_have_closed_channel = not pending.lost_reason
                pending.lost_reason = pending.lost_reason or str(error)
                self._quarantine.add(pending)

    def adopt(self, channel: PublishChannel) -> None:
        """Keep a channel for the reply that is expected on it; `on_tick` closes it."""
        channel.owner = self
        self._older.append(channel)

    # ---- deadlines, and the connection ------------------------------------------------------------------------------

    def on_tick(self, now: float) -> None:
        """End what is past its deadline, and close the older channels on which nothing is awaited."""
        self._resend_paused(now)
        waiting = [*self._inbox, *self._all_parked(), *self._quarantine.waiting, *(one for _, one in self._paused)]
        for pending in waiting:
            if pending.deadline <= now and not pending.done:
                pending.finish(self._not_sent(pending))
        while self._inbox and self._inbox[0].done:
            self._inbox.popleft()
        for parked in self._parked.values():
            parked[:] = [one for one in parked if not one.done]
        self._paused = [(until, one) for until, one in self._paused if not one.done]
        error = None if self.purpose.awaits_confirm_forever else self.session.not_confirmed
        for channel in (*self._channels(), *self._quarantine.channels):
            channel.expire(now, error)
        self._quarantine.close_finished()
        for channel in [one for one in self._older if not one.is_busy]:
            if not self.session.calls.has_requests_on(channel.serial):
                self._older.remove(channel)
                channel.close()

    def _not_sent(self, pending: PendingPublish) -> AmqpWorkerError:
        if pending.lost_reason:
            return unconfirmed(pending.lost_reason)
        if pending.nacks:
            return nacked(pending, bounded=False)
        return copy.copy(pending.problem) if pending.problem is not None else self.session.not_sent(pending.timeout)

    def on_lost(self, problem: ConnectionProblem, is_final: bool) -> None:
        """Keep what may be published again for the next connection; if the loss `is_final`, everything fails."""
        channels = [*self._channels(), *self._quarantine.channels]
        # First: once it is taken, what was in flight in quarantine looks as if it had never been written.
        unwritten = [*self._quarantine.waiting, *(one for _, one in self._paused), *self._all_parked()]
        in_flight = [pending for channel in channels for pending in channel.take_in_flight()]
        again = [one for one in in_flight if one.resend and not is_final]
        for pending in again:
            pending.returned, pending.lost_reason = None, pending.lost_reason or problem.text
        # Before they are removed elsewhere: `close` must not see an idle lane in between.
        self._inbox.extendleft(reversed([*again, *unwritten]))
        self._quarantine.clear()
        self._parked.clear()
        self._paused.clear()
        self._older.clear()
        self._current, self._opening = None, False
        for channel in channels:
            self.session.calls.fail_requests_on(channel.serial)
        for pending in set(in_flight).difference(again):
            pending.finish(unconfirmed(problem.text))
        if again:
            log.info("publications_resent", count=len(again), reason=problem.text)
        while is_final and self._inbox:
            pending = self._inbox.popleft()
            pending.finish(unconfirmed(pending.lost_reason) if pending.lost_reason else problem.error())
