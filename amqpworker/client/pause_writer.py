"""
Write a change of what is paused into the stream, which every worker process reads.

Decides when it is in: once its entry was read back, and no other was written since the entry that it was made from. Else another
entry, with the changes of both, repairs that; so of several writers at the same time none is lost.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from amqpworker.broker.stream_follower import StreamFollower
from amqpworker.broker.stream_reader import FollowedStream, offset_of
from amqpworker.errors import ConfigError, Unconfirmed
from amqpworker.log.logger import get_logger
from amqpworker.model.paused import Change, Paused, PauseEntry, PauseLog
from amqpworker.routing.pause_messages import publication_of_pauses

if TYPE_CHECKING:
    from amqpworker.broker.address import Address
    from amqpworker.client.producer import Producer
    from amqpworker.model.message import Delivery
    from amqpworker.routing.queues import Plan
    from amqpworker.settings import Settings

log = get_logger(__name__)

STOP_TIMEOUT = 2.0
MIN_TIMEOUT = 0.1


class _Reading:
    """What was read of the stream so far, by the I/O thread of a follower."""

    def __init__(self) -> None:
        self.log = PauseLog()
        self.missing_from: int | None = None
        self._offsets: dict[str, int] = {}
        self._changed = threading.Condition()

    def on_entry(self, delivery: Delivery) -> None:
        """Take an entry."""
        entry = PauseEntry.load(delivery.body)
        offset, message_id = offset_of(delivery), delivery.properties.message_id or ""
        with self._changed:
            self.log.add(offset, message_id, entry)
            self.missing_from = None if self.log.is_complete else self.missing_from
            if not self.log.is_complete and entry is not None and self.missing_from is None:
                self.missing_from = entry.base
            self._offsets[message_id] = offset
            self._changed.notify_all()

    def state(self) -> tuple[Paused, int]:
        """Return what is paused, and the offset of the last entry."""
        with self._changed:
            return self.log.paused, self.log.offset

    def offset_of(self, message_id: str, timeout: float) -> int | None:
        """Wait for an entry, and return its offset; None if it does not arrive in time."""
        with self._changed:
            self._changed.wait_for(lambda: message_id in self._offsets, timeout)
            return self._offsets.get(message_id)


class PauseWriter:
    """
    Reads and writes what is paused, over a connection for the time of each call and the one of the `producer`.

    Its methods raise ConfigError if the stream does not exist or cannot be read, or if the broker does not support streams.
    """

    def __init__(self, producer: Producer, plan: Plan, addresses: Sequence[Address], settings: Settings) -> None:
        self._producer = producer
        self._addresses = addresses
        self._settings = settings
        self._names = plan.names
        self._requirements = plan.if_declared(plan.control)
        self.was_empty = False
        """Whether the stream had no entry when it was read last: nothing was ever paused, or the stream was deleted."""

    def read(self) -> Paused:
        """Return what is paused."""
        until = time.monotonic() + self._settings.send_timeout
        with self._follow(until) as reading:
            return reading.state()[0]

    def write(self, change: Change) -> bool:
        """
        Write a change; return false if it changes nothing.

        It is written nevertheless into an empty stream: if that was deleted, workers go by what was in it until the next entry. Raises SendError if it was not confirmed in time; `Unconfirmed` if it is not known whether it is in the stream.
        """
        until = time.monotonic() + self._settings.send_timeout
        with self._follow(until) as reading:
            paused, last = reading.state()
            is_change = paused.after(change) != paused
            if not (is_change or self.was_empty):
                return False
            if self.was_empty:
                log.warning(
                    "pauses_begin",
                    stream=self._names.control,
                    effect="if it was deleted, what was paused before is not any more",
                )
            entry = PauseEntry(paused.after(change), last, change)
            while self._publish(reading, entry, until) != last + 1:
                # Others have written since. What was read by now has the changes of all.
                paused, last = reading.state()
                entry = PauseEntry(paused, last)
            return is_change

    def _publish(self, reading: _Reading, entry: PauseEntry, until: float) -> int:
        """Publish an entry, and return its offset once it was read back."""
        publication = publication_of_pauses(entry, self._names, time.time())
        lane = self._producer.publisher.sends
        pending = lane.make_pending(publication, self._requirements, max(MIN_TIMEOUT, until - time.monotonic()))
        lane.submit(pending)
        pending.wait()
        if pending.error is not None:
            raise pending.error
        offset = reading.offset_of(str(publication.properties.message_id), until - time.monotonic())
        if offset is None:
            raise Unconfirmed(
                f"It is not known whether the change is in the stream {self._names.control!r}: the broker has confirmed it, but "
                f"it was not read back within {self._settings.send_timeout:g} s. Repeat it: that does no harm."
            )
        return offset

    @contextmanager
    def _follow(self, until: float) -> Iterator[_Reading]:
        """Read the stream as far as necessary, and follow it for the time of the block."""
        with self._read("last", until) as reading:
            self.was_empty = reading.state()[1] < 0
            if reading.missing_from is None:
                yield reading
                return
        # The writer of the last entry has not repaired it: what it lacks is before it.
        with self._read(max(0, reading.missing_from), until) as reading:
            yield reading

    @contextmanager
    def _read(self, start: Literal["last"] | int, until: float) -> Iterator[_Reading]:
        reading = _Reading()
        name = self._names.control
        stream = FollowedStream(name, self._requirements, start, reading.on_entry)
        follower = StreamFollower(self._addresses, self._settings, [stream])
        follower.start()
        try:
            if not follower.caught_up(name, until - time.monotonic()):
                reason = follower.problem or follower.failure(name) or "the broker did not deliver its entries in time."
                raise ConfigError(f"The stream {name!r}, which has what is paused, cannot be read: {reason}")
            yield reading
        finally:
            follower.stop(STOP_TIMEOUT)
