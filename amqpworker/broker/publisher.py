"""
The publishing side of a process: one connection, any number of threads that call it.

Decides when a publication goes out, and how it ended: confirmed and not returned, or one error each. Bounds what is in
flight, and every wait. Direct reply-to lives here too, since replies come on the channel that asked.
"""

from __future__ import annotations

import copy
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from amqpworker.broker.address import Address
from amqpworker.broker.channel import PUBLISH_CHANNEL, Channel, Prepared, open_channel, prepare
from amqpworker.broker.connection import BROKEN, CLOSED, IOThread
from amqpworker.broker.contents import Returned
from amqpworker.broker.declare import Declarer, Need
from amqpworker.broker.outgoing import Outgoing, WhenDone
from amqpworker.broker.reasons import ConnectionProblem, channel_error, exchange_of
from amqpworker.broker.refusals import culprits, not_confirmed, not_connected, not_written, refusal, unconfirmed
from amqpworker.broker.seam import PublicConnection, Sink
from amqpworker.errors import AmqpWorkerError, InvalidArguments, NotConnected, NotRouted
from amqpworker.logs import get_logger
from amqpworker.message import Delivery, Publication
from amqpworker.settings import Settings
from amqpworker.topology import Topology

__all__ = ["REPLIES", "Publisher"]

log = get_logger(__name__)

REPLIES: Need = "the reply consumer"

MOST_IN_FLIGHT = 4096
MOST_BYTES_IN_FLIGHT = 32 * 1024 * 1024
DEFAULT_FRAME_MAX = 131_072
CHANNEL_PAUSE = 0.5
# A connection whose confirms stay away this much longer than a caller waits is no use, though its heartbeats come.
SILENCE = 20.0

OnReply = Callable[[str, bytes], bool]


class Publisher(Sink):
    """Publishes with confirms and `mandatory`, from any thread, over one connection that is made at first use."""

    def __init__(
        self,
        addresses: Sequence[Address],
        settings: Settings,
        topology_of: Callable[[Need], Topology],
        on_reply: OnReply,
    ) -> None:
        self.settings = settings
        self._topology_of = topology_of
        self._on_reply = on_reply
        self._io = IOThread("publisher", addresses, settings, self)
        self._start_lock = threading.Lock()
        self._started = self._closed = self._moving = False
        self._frame_max = DEFAULT_FRAME_MAX
        self._own_codec = self._io.own_codec
        self._inbox: deque[Outgoing] = deque()
        self._forget_session()
        self.problem: ConnectionProblem | None = None
        self.on_channel_lost: Callable[[], None] = lambda: None

    def _forget_session(self) -> None:
        self._connection: PublicConnection | None = None
        self._channel: Channel | None = None
        self._declarer: Declarer | None = None
        self._in_flight: dict[int, Outgoing] = {}
        self._bytes_in_flight = 0
        self._held: set[Outgoing] = set()
        self._tags = itertools.count(1)
        self._reply_waiters: list[Callable[[AmqpWorkerError | None], None]] = []

    # ---- from any thread --------------------------------------------------------------------------------------------

    def publish(
        self,
        publication: Publication,
        needs: tuple[Need, ...] = (),
        timeout: float | None = None,
        when_done: WhenDone | None = None,
        urgent: bool = True,
    ) -> Outgoing:
        """
        Put a publication on its way.

        What is not `urgent` may wait for the next that is, or for the next look at deadlines: one write for many.

        Raises:
            InvalidArguments: a property or header cannot be carried; the text names it.
        """
        try:
            prepared = prepare(publication, self._frame_max, self._own_codec)
        except ValueError as error:
            raise InvalidArguments(f"The message cannot be carried by AMQP: {error}.") from error
        deadline = time.monotonic() + (self.settings.send_timeout if timeout is None else timeout)
        outgoing = Outgoing(prepared, deadline, needs, when_done)
        if not self._started:
            self.start()
        if self._closed:
            outgoing.finish(NotConnected(CLOSED))
            return outgoing
        self._inbox.append(outgoing)
        if urgent or not self._io.ticking:
            self._io.wake()
        if self._io.ended:
            # The last look into the inbox was before it came in: nobody else will end it.
            outgoing.finish(NotConnected(BROKEN if self.broken else CLOSED))
        return outgoing

    def start(self) -> None:
        """Connect now, instead of at the first publication; what was closed stays closed."""
        with self._start_lock:
            if not (self._started or self._closed):
                self._io.start()
                self._started = True

    def on_beat(self, beat: Callable[[], None]) -> None:
        """Have `beat` called about once in a second by the I/O thread; before it starts."""
        self._io.beat = beat

    def wake(self) -> None:
        """Write what has gathered now."""
        self._io.wake()

    @property
    def broken(self) -> bool:
        """Whether the I/O thread has ended though nobody closed it: another publisher has to be made."""
        return self._io.ended and not self._closed

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._connection is not None

    def idle(self) -> bool:
        """Whether nothing waits for a confirm."""
        # In the order in which a message goes through them, so that one that moves on meanwhile is seen further down.
        return not (self._inbox or self._moving or self._in_flight or self._held)

    def close(self, timeout: float) -> bool:
        """Wait for what is under way, then close; what is not confirmed by then fails. False: it was not all confirmed."""
        with self._start_lock:
            if not self._started:
                self._closed = True
                return True
        until = time.monotonic() + timeout
        done = threading.Event()
        while not self.idle() and self._io.alive and time.monotonic() < until:
            done.wait(0.005)
        confirmed = self.idle()
        self._closed = True
        self._io.stop(max(1.0, until - time.monotonic()))
        return confirmed

    # ---- in the I/O thread: the connection --------------------------------------------------------------------------

    def opened(self, connection: PublicConnection) -> None:
        """Open the publishing channel."""
        self._forget_session()
        self.problem = None
        self._connection = connection
        self._frame_max = connection.params.frame_max or DEFAULT_FRAME_MAX
        self._declarer = Declarer(connection, self._topology_of)
        self._open_channel()
        # At the same time: the first messages wait for both.
        for need in {need for outgoing in list(self._inbox) for need in outgoing.needs if need != REPLIES}:
            self._declarer.ensure(need, lambda _: None)

    def _open_channel(self) -> None:
        if self._connection is not None and self._connection.is_open:
            open_channel(self._connection, self, self._on_channel, self._on_channel_closed, PUBLISH_CHANNEL)

    def _on_channel(self, channel: Channel) -> None:
        def selected() -> None:
            self._tags = itertools.count(1)
            self._channel = channel
            self.woken()

        channel.select_confirms(selected)

    def _on_channel_closed(self, error: BaseException) -> None:
        """Fail what was in flight: the broker closed the channel because of one of them."""
        self._channel = None
        # Where the connection ends it is the connection's end that tells why: `lost` comes next.
        if self._connection is None or not self._connection.is_open:
            return
        if self._declarer is not None:
            self._declarer.done.discard(REPLIES)
        # What is held for a reply consumer on the old channel begins again on the next.
        self._inbox.extend(self._held)
        self._held.clear()
        self._reply_waiters.clear()
        told = channel_error(error, "publishing")
        if isinstance(told, NotRouted) and self._declarer is not None:
            # An exchange that we declared may be gone: the next message makes it anew.
            self._declarer.forget()
        log.warning("publish_channel_closed", reason=str(told))
        self.on_channel_lost()
        in_flight = self._take_in_flight()
        blamed = culprits(told, exchange_of(error), in_flight)
        for outgoing in in_flight:
            outgoing.finish(type(told)(str(told)) if outgoing in blamed else unconfirmed(str(told)))
        self._io.call_later(CHANNEL_PAUSE, self._open_channel)

    def lost(self, problem: ConnectionProblem) -> None:
        """Fail what was in flight; what waits to go out goes on waiting, where it helps."""
        self.problem = problem
        in_flight = self._take_in_flight()
        # Before they are held no more: `close` must not take us for idle in between.
        self._inbox.extendleft(reversed(list(self._held)))
        self._forget_session()
        self.on_channel_lost()
        for outgoing in in_flight:
            outgoing.finish(unconfirmed(problem.text))
        if self._io.ended or self._closed or problem.kind != "away":
            while self._inbox:
                self._inbox.popleft().finish(problem.error())

    def _take_in_flight(self) -> list[Outgoing]:
        taken = list(self._in_flight.values())
        self._in_flight.clear()
        self._bytes_in_flight = 0
        return taken

    # ---- in the I/O thread: publications ----------------------------------------------------------------------------

    def woken(self) -> None:
        """Write what has gathered, as far as the bounds allow."""
        channel = self._channel
        if channel is None or self._connection is None or self._connection.blocked_now:
            return
        self._moving = True
        batch = self._take_batch()
        self._moving = False
        if batch:
            channel.publish(batch)

    def _take_batch(self) -> list[Prepared]:
        batch: list[Prepared] = []
        inbox, in_flight = self._inbox, self._in_flight
        while inbox and self._bytes_in_flight < MOST_BYTES_IN_FLIGHT and len(in_flight) < MOST_IN_FLIGHT:
            outgoing = inbox.popleft()
            if outgoing.done or (outgoing.needs and self._hold(outgoing)):
                continue
            if outgoing.prepared.frame_max > self._frame_max and not self._prepare_again(outgoing):
                continue
            in_flight[next(self._tags)] = outgoing
            self._bytes_in_flight += outgoing.size
            batch.append(outgoing.prepared)
        return batch

    def _prepare_again(self, outgoing: Outgoing) -> bool:
        """Marshal for the smaller frames of this broker; false where its headers do not fit into one."""
        try:
            outgoing.prepared = prepare(outgoing.prepared.publication, self._frame_max, self._own_codec)
        except ValueError as error:
            outgoing.finish(InvalidArguments(f"This broker cannot carry the message: {error}."))
            return False
        return True

    def _hold(self, outgoing: Outgoing) -> bool:
        """Hold a publication back until what it needs exists; false where it does already."""
        assert self._declarer is not None
        missing = [need for need in outgoing.needs if need not in self._declarer.done]
        if not missing:
            return False
        self._held.add(outgoing)

        def answer(error: AmqpWorkerError | None) -> None:
            if outgoing not in self._held:
                return
            if error is not None:
                outgoing.finish(copy.copy(error))  # one instance would be raised by many threads
            else:
                self._inbox.append(outgoing)
                self._io.wake()
            self._held.discard(outgoing)

        if missing[0] == REPLIES:
            self._consume_replies(answer)
        else:
            self._declarer.ensure(missing[0], answer)
        return True

    def _consume_replies(self, answer: Callable[[AmqpWorkerError | None], None]) -> None:
        declarer = self._declarer
        assert self._channel is not None
        assert declarer is not None

        def consumed(_tag: str) -> None:
            declarer.done.add(REPLIES)
            for waiting in self._reply_waiters:
                waiting(None)
            self._reply_waiters.clear()

        self._reply_waiters.append(answer)
        if len(self._reply_waiters) == 1:
            self._channel.consume_replies(consumed)

    def on_confirm(self, tag: int, multiple: bool, ack: bool) -> None:
        """End what the broker confirmed or refused."""
        in_flight = self._in_flight
        if multiple:
            tags = list(itertools.takewhile(lambda one: one <= tag, in_flight))
        else:
            tags = [tag] if tag in in_flight else []
        for one in tags:
            outgoing = in_flight.pop(one)
            self._bytes_in_flight -= outgoing.size
            if ack and outgoing.returned is None:
                outgoing.finish(None)
            else:
                self._refuse(outgoing, ack)
        if self._inbox:
            self.woken()

    def _refuse(self, outgoing: Outgoing, ack: bool) -> None:
        if ack and outgoing.needs and self._declarer is not None:
            # A queue that we declared is gone: the next message makes it anew.
            self._declarer.forget()
        outgoing.finish(refusal(outgoing, ack))

    def on_return(self, returned: Returned) -> None:
        """Note which publication came back; its confirm comes next (https://www.rabbitmq.com/docs/confirms)."""
        message_id = returned.properties.message_id
        for outgoing in self._in_flight.values():
            what = outgoing.prepared.publication
            if (
                outgoing.returned is None
                and what.properties.message_id == message_id
                and what.routing_key == returned.routing_key
                and what.exchange == returned.exchange
            ):
                outgoing.returned = returned.reply_text
                return

    def on_delivery(self, delivery: Delivery) -> None:
        """Hand on a reply."""
        self._on_reply(delivery.properties.correlation_id or "", delivery.body)

    def tick(self) -> bool:
        """Fail what has waited for too long, and write what nobody was in a hurry for."""
        now = time.monotonic()
        self.woken()
        for outgoing in [one for one in list(self._inbox) if one.deadline <= now]:
            outgoing.finish(self._not_sent())
        while self._inbox and self._inbox[0].done:
            self._inbox.popleft()
        for outgoing in [one for one in self._held if one.deadline <= now]:
            self._held.discard(outgoing)
            outgoing.finish(self._not_sent())
        silent = False
        for outgoing in self._in_flight.values():
            if outgoing.deadline <= now and not outgoing.done:
                outgoing.finish(self._not_confirmed())
            silent = silent or outgoing.deadline + SILENCE <= now
        if silent and self._connection is not None and not self._connection.blocked_now:
            self._io.drop("publications were not confirmed")
        return not self.idle()

    def _not_sent(self) -> AmqpWorkerError:
        connection = self._connection
        if connection is None:
            return not_connected(self.problem)
        return not_written(connection.blocked_now)

    def _not_confirmed(self) -> AmqpWorkerError:
        return not_confirmed(self._connection is not None and self._connection.blocked_now)
