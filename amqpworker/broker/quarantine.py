"""
Publications that are published alone, each on a channel of its own, so that they affect no others.

Decides which: those to an exchange for which the broker has closed a channel, until it accepts one again, and those that were
in flight when the broker closed a channel without naming the exchange.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from amqpworker.broker.connection import ChannelError
from amqpworker.broker.pending_publish import PendingPublish
from amqpworker.broker.publish_channel import PublishChannel

if TYPE_CHECKING:
    from amqpworker.broker.lane import Lane

MAX_QUARANTINE_CHANNELS = 8


class Quarantine:
    """The quarantine of one lane, used in the thread or event loop of the connection."""

    def __init__(self, lane: Lane) -> None:
        self.exchanges: set[str] = set()
        self._lane = lane
        self._waiting: deque[PendingPublish] = deque()
        self._starting = False
        self._channels: dict[PublishChannel, PendingPublish] = {}

    @property
    def is_busy(self) -> bool:
        """Whether publications wait here."""
        return bool(self._waiting or self._channels)

    @property
    def waiting(self) -> list[PendingPublish]:
        """The publications without an open channel."""
        return [*self._waiting, *(one for channel, one in self._channels.items() if not channel.is_busy)]

    @property
    def channels(self) -> list[PublishChannel]:
        """The channels, one per publication."""
        return list(self._channels)

    def add(self, pending: PendingPublish) -> None:
        """Add a publication; `start` publishes it."""
        self._waiting.append(pending)

    def start(self) -> None:
        """Open a channel for each waiting publication, a few at a time."""
        connection = self._lane.session.connection
        if self._starting or connection is None:
            return  # a channel that cannot be opened ends at once, which calls this again
        self._starting = True
        while self._waiting and len(self._channels) < MAX_QUARANTINE_CHANNELS and connection.is_open:
            pending = self._waiting.popleft()
            if not pending.done:
                channel = PublishChannel(self._lane, self)
                self._channels[channel] = pending
                channel.open()
        self._starting = False

    def on_ready(self, channel: PublishChannel) -> None:
        """Write the publication that the channel was opened for."""
        pending = self._channels[channel]
        if pending.done or not (pending.is_wanted() and self._lane.encode_again(pending, channel.number)):
            self._end(channel, channel.close)
            return
        channel.add(pending)
        channel.write([pending.data])

    def on_confirmed(self, channel: PublishChannel) -> None:
        """Release the exchange: the broker accepts messages for it again."""
        pending = self._channels[channel]
        if not channel.is_busy:
            if pending.done and pending.error is None:
                self.exchanges.discard(pending.publication.exchange)
            self._end(channel, lambda: self._lane.adopt(channel))

    def on_closed(self, channel: PublishChannel, error: ChannelError) -> None:
        """Have the lane decide: no other publication was on this channel."""
        pending = self._channels[channel]
        in_flight = channel.take_in_flight() or ([] if pending.done else [pending])
        self._end(channel, lambda: self._lane.after_close(channel, in_flight, error))

    def _end(self, channel: PublishChannel, and_then: Callable[[], None]) -> None:
        del self._channels[channel]
        and_then()
        self.start()

    def close_finished(self) -> None:
        """Close the channels of publications that ended without a confirm: others wait for their places."""
        for channel, pending in list(self._channels.items()):
            if pending.done:
                self._end(channel, channel.close)

    def clear(self) -> None:
        """Forget all channels and publications: the connection was lost."""
        self._starting = False
        self._waiting.clear()
        self._channels.clear()
        self.exchanges.clear()
