"""
One stream, read from its first or its last entries on and then followed, over any number of connections.

Decides where reading starts, and when everything is read that was in the stream before. `stream_follower` has the connection.

The last entries are read first: RabbitMQ counts the messages of a stream only every few seconds, so their offset is what shows
where the stream ends. After a lost connection the last entry that was read is read again: if it is another one, or none, the
stream was deleted and declared again, and is read from its beginning.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from amqpworker.broker.channel_errors import channel_error
from amqpworker.broker.connection import ChannelError, QueueState
from amqpworker.broker.declarer import Declarer
from amqpworker.broker.io_thread import IOThread
from amqpworker.broker.labels import ConsumerTags
from amqpworker.broker.pika_channel import PikaChannel
from amqpworker.broker.pika_connection import PikaConnection
from amqpworker.broker.stream_channel import PREFETCH, StreamChannel
from amqpworker.errors import AmqpWorkerError, NotConnected
from amqpworker.lifecycle import backoff
from amqpworker.log.logger import get_logger
from amqpworker.model.message import Delivery
from amqpworker.routing.queues import Requirement

log = get_logger(__name__)

OFFSET = "x-stream-offset"
# The last entries arrive at once. This long after one of them, or after a reply without any, there are no more.
QUIET = 0.05
# If the stream has messages, its last ones are waited for this long.
FIRST_WITHIN = 2.0
# Each attempt without the stream, or without permission to read it, is an error in the broker's log.
RETRY_AFTER, MAX_RETRY_AFTER = 3.0, 30.0
CHECK_EVERY = 10.0


@dataclass(frozen=True, slots=True, eq=False)
class FollowedStream:
    """
    A stream to follow: what must exist first, and where it is read from: its first entry, an offset, or its last entries only.

    `on_entry` is called in the I/O thread, in order; with `last` also for entries that it was called for before.
    """

    name: str
    requirements: tuple[Requirement, ...]
    start: Literal["first", "last"] | int
    on_entry: Callable[[Delivery], None]


class StreamReader:
    """Reads one stream for a `StreamFollower`; all of it runs in the I/O thread, except for the properties."""

    def __init__(
        self, stream: FollowedStream, keeper: IOThread, tags: ConsumerTags, on_change: Callable[[], None]
    ) -> None:
        self.stream = stream
        self.is_caught_up = False
        """Whether everything was read that was in the stream when it was subscribed to; false without a connection."""
        self.failure: AmqpWorkerError | None = None
        """Why it cannot be read now."""
        self._keeper = keeper
        self._tags = tags
        self._on_change = on_change
        self._connection: PikaConnection | None = None
        self._declarer: Declarer | None = None
        self._current: StreamChannel | None = None
        self._end = -1
        # The last entry that was read, on whichever connection.
        self._last_read: tuple[int, bytes] | None = None
        self._must_match = False
        self._refused: set[Requirement] = set()
        self._logged_reason = ""
        self._failures = 0

    @property
    def position(self) -> int:
        """The offset of the last entry that was delivered, -1 before the first."""
        return -1 if self._current is None else self._current.last_offset

    # ---- the connection ---------------------------------------------------------------------------------------------

    def on_opened(self, connection: PikaConnection, declarer: Declarer) -> None:
        """Read on, on another connection."""
        self._connection, self._declarer = connection, declarer
        self._prepare()

    def on_lost(self, failure: AmqpWorkerError) -> None:
        """Note that the connection was lost or could not be made."""
        self._connection = self._declarer = None
        self._current = None
        self._must_match = False
        self._fail(failure)

    def refuse(self, error: AmqpWorkerError) -> None:
        """Never declare what the stream requires again: the broker cannot have it, for which it ends the connection."""
        self._refused.update(self.stream.requirements)
        self._log_once(error)

    def _prepare(self) -> None:
        """Make sure that what the stream requires exists, then subscribe. If it cannot be declared it may exist all the same."""
        declarer = self._declarer
        if declarer is None or self._keeper.is_stopping:
            return
        needed = (one for one in self.stream.requirements if one not in declarer.declared and one not in self._refused)
        missing = next(needed, None)
        if missing is None:
            self._subscribe("last", is_probe=self.stream.start != "last")
            return

        def on_declared(error: AmqpWorkerError | None) -> None:
            if declarer is not self._declarer:
                return
            if isinstance(error, NotConnected):
                self._retry_later(error)
                return
            if error is not None:
                self._refused.add(missing)
            self._prepare()

        declarer.ensure(missing, on_declared)

    # ---- the subscription -------------------------------------------------------------------------------------------

    def _subscribe(self, offset: int | str, is_probe: bool = False) -> None:
        connection = self._connection
        if connection is None or not connection.is_open:
            return
        self._close()
        current = self._current = StreamChannel(
            offset, is_probe, self._keeper, lambda delivery: self._on_delivery(current, delivery)
        )
        stop_waiting = self._keeper.liveness.expect_answer(lambda may_leave: self._on_late(current, may_leave))

        def on_opened(channel: PikaChannel) -> None:
            if current is not self._current:  # it was given up meanwhile
                stop_waiting()
                channel.close()
                return
            current.channel = channel
            channel.on_cancel(lambda: self._on_cancelled(current))
            arguments = {OFFSET: offset}
            channel.consume(self.stream.name, PREFETCH, self._tags.make(self.stream.name), on_consumed, arguments)

        def on_consumed() -> None:
            stop_waiting()
            if current is self._current and current.channel is not None:
                current.channel.ask(self.stream.name, lambda state: self._on_state(current, state))

        def on_closed(error: ChannelError) -> None:
            stop_waiting()
            if current is self._current and connection.is_open:
                self._on_closed(error)

        connection.open_channel(current, on_opened, on_closed)

    def _on_state(self, current: StreamChannel, state: QueueState) -> None:
        if current is not self._current:
            return
        if current.offset != "last":
            self._check_caught_up(current)
            return
        is_behind = current.last_offset < 0 and (state.ready or state.is_unreliable)
        patience = FIRST_WITHIN if is_behind else QUIET
        current.wait_until = max(current.wait_until, time.monotonic() + patience)
        self._wait_for_end(current)

    def _wait_for_end(self, current: StreamChannel) -> None:
        """Wait until the last entries have arrived."""
        if current is not self._current:
            return
        left = current.wait_until - time.monotonic()
        if left > 0:
            self._keeper.call_later(min(left, QUIET), lambda: self._wait_for_end(current))
            return
        self._end = current.last_offset
        if current.is_probe:
            self._read_from_position()
            return
        if self._last_read is not None and self._last_read[0] > self._end:
            self._last_read = None
            log.warning(
                "stream_recreated", stream=self.stream.name, effect="what was read before is valid until the next entry"
            )
        self._on_caught_up()

    def _read_from_position(self) -> None:
        if self._last_read is not None and self._last_read[0] > self._end:
            self._begin_anew()
        elif self._last_read is not None:
            self._must_match = True
            self._subscribe(self._last_read[0])
        else:
            self._subscribe(self.stream.start)

    def _begin_anew(self) -> None:
        log.warning("stream_recreated", stream=self.stream.name, effect="it is read from its beginning")
        self._last_read, self._must_match = None, False
        self._subscribe("first")

    def _on_delivery(self, current: StreamChannel, delivery: Delivery) -> None:
        if current is not self._current:
            return
        offset = offset_of(delivery)
        current.last_offset = max(current.last_offset, offset)
        if current.offset == "last":
            current.wait_until = time.monotonic() + QUIET
        if self._must_match:
            self._must_match = False
            if (offset, delivery.body) != self._last_read:
                self._begin_anew()
                return
        elif not current.is_probe:
            self._pass_on(delivery)
            self._last_read = offset, delivery.body
        current.acknowledge(delivery.tag)
        self._check_caught_up(current)

    def _pass_on(self, delivery: Delivery) -> None:
        try:
            self.stream.on_entry(delivery)
        except Exception as error:
            log.error("stream_entry_failed", stream=self.stream.name, exc_info=error)

    def _check_caught_up(self, current: StreamChannel) -> None:
        if not self.is_caught_up and current.offset != "last" and current.last_offset >= self._end:
            self._on_caught_up()

    def _on_caught_up(self) -> None:
        self.is_caught_up = True
        self.failure = None
        self._failures = 0
        if self._logged_reason:
            self._logged_reason = ""
            log.info("stream_followed", stream=self.stream.name)
        self._on_change()
        if self._current is not None:
            self._check_later(self._current)

    def _check_later(self, current: StreamChannel) -> None:
        """Ask for the stream every few seconds: if it does not exist, the broker closes the channel."""

        def on_answer(state: QueueState) -> None:
            if current is not self._current:
                return
            if current.is_stuck(state.ready):
                self._retry_later(NotConnected(f"The stream {self.stream.name!r} has entries that were not delivered."))
            else:
                self._check_later(current)

        def ask() -> None:
            if current is self._current and current.channel is not None and current.channel.is_open:
                self._keeper.liveness.expect(CHECK_EVERY)
                current.channel.ask(self.stream.name, on_answer)

        self._keeper.call_later(CHECK_EVERY, ask)

    # ---- what ends a subscription -----------------------------------------------------------------------------------

    def _on_late(self, current: StreamChannel, may_leave: bool) -> None:
        request = f"a subscription to stream {self.stream.name!r}"
        if may_leave:
            self._keeper.liveness.leave(request)
        elif current is self._current:
            self._retry_later(NotConnected(f"The broker did not answer the request for {request} in time."))

    def _on_cancelled(self, current: StreamChannel) -> None:
        """Declare the stream again: it was deleted, or has lost its leader."""
        if current is self._current:
            self._declare_again()
            self._retry_later(NotConnected(f"The broker ended the subscription to stream {self.stream.name!r}."))

    def _on_closed(self, error: ChannelError) -> None:
        self._current = None
        self._declare_again()
        self._retry_later(channel_error(error, f"reading the stream {self.stream.name!r}", "read"))

    def _declare_again(self) -> None:
        if self._declarer is not None:
            self._declarer.forget(self.stream.requirements)

    def _retry_later(self, error: AmqpWorkerError) -> None:
        self._close()
        self._must_match = False
        self._failures += 1
        self._fail(error)
        self._log_once(error)
        connection = self._connection

        def on_pause_over() -> None:
            if self._connection is connection and self._current is None:
                self._prepare()

        self._keeper.call_later(backoff(RETRY_AFTER, MAX_RETRY_AFTER, self._failures), on_pause_over)

    def _fail(self, error: AmqpWorkerError) -> None:
        self.is_caught_up, self.failure = False, error
        self._on_change()

    def _log_once(self, error: AmqpWorkerError) -> None:
        if str(error) != self._logged_reason:
            self._logged_reason = str(error)
            effect = "what was read before stays valid; trying again"
            log.warning("stream_not_followed", stream=self.stream.name, reason=str(error), effect=effect)

    def _close(self) -> None:
        """Close the channel of the subscription; nothing of it arrives any more."""
        current, self._current = self._current, None
        if current is not None and current.channel is not None:
            current.channel.close()


def offset_of(delivery: Delivery) -> int:
    """Return the offset of an entry in its stream, -1 if the broker has not given one."""
    headers: Any = delivery.properties.headers or {}
    offset = headers.get(OFFSET)
    return offset if isinstance(offset, int) else -1
