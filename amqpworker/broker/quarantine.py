"""
Publications that go out alone, each on a channel of its own.

Decides which do: those to an exchange that the broker has closed a channel for, until it takes one again, and those that
were in flight beside something that closed a channel without a name. So they harm no others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from amqpworker.broker.pending_publish import PendingPublish
from amqpworker.broker.publish_channel import PublishChannel
from amqpworker.broker.publish_session import Session

__all__ = ["Quarantine"]

MOST_CHANNELS = 8


class QuarantineUser(Protocol):
    """The lane that the publications belong to."""

    def fit(self, outgoing: PendingPublish, number: int) -> bool:
        """Marshal a publication for a channel; false if it cannot be, and has ended."""

    def adopt(self, channel: PublishChannel) -> None:
        """Keep a channel for the reply that is expected on it, or close it."""

    def on_refused(self, channel: PublishChannel, outgoing: PendingPublish, ack: bool) -> None:
        """Take that the broker refused a publication, or returned it."""

    def after_close(self, channel: PublishChannel, in_flight: list[PendingPublish], error: BaseException) -> None:
        """Take that the broker closed a channel, and what was in flight on it."""

    def on_reply(self, correlation_id: str, body: bytes) -> None:
        """Take the reply to a call."""


class Quarantine:
    """The quarantine of one lane; all of it runs in the I/O thread."""

    def __init__(self, user: QuarantineUser, session: Session, replies: bool) -> None:
        self.exchanges: set[str] = set()
        self._user = user
        self._session = session
        self._replies = replies
        self._waiting: deque[PendingPublish] = deque()
        self._starting = False
        self._channels: dict[PublishChannel, PendingPublish] = {}

    @property
    def busy(self) -> bool:
        """Whether publications wait here."""
        return bool(self._waiting or self._channels)

    @property
    def waiting(self) -> list[PendingPublish]:
        """The publications that have no channel yet, or whose channel is just being opened."""
        return [*self._waiting, *(one for channel, one in self._channels.items() if not channel.busy)]

    @property
    def channels(self) -> list[PublishChannel]:
        """The channels of those that are on their way."""
        return list(self._channels)

    def add(self, outgoing: PendingPublish) -> None:
        """Take a publication in; `start` sends it."""
        self._waiting.append(outgoing)

    def start(self) -> None:
        """Open a channel for each of those that wait, a few at a time."""
        connection = self._session.connection
        if self._starting or connection is None:
            return  # one that finds no channel ends at once, which calls this again
        self._starting = True
        while self._waiting and len(self._channels) < MOST_CHANNELS and connection.is_open:
            outgoing = self._waiting.popleft()
            if not outgoing.done:
                channel = PublishChannel(next(self._session.serials), self, self._replies)
                self._channels[channel] = outgoing
                channel.open(connection, self._session.io.liveness)
        self._starting = False

    def on_ready(self, channel: PublishChannel) -> None:
        """Write the publication that the channel was opened for."""
        outgoing = self._channels[channel]
        if outgoing.done or not (outgoing.is_wanted() and self._user.fit(outgoing, channel.number)):
            self._end(channel, channel.close)
            return
        channel.add(outgoing)
        channel.write([outgoing.prepared])

    def on_confirmed(self, channel: PublishChannel) -> None:
        """Give the exchange free: the broker takes what is published to it again."""
        outgoing = self._channels.get(channel)
        if outgoing is not None and not channel.busy:
            if outgoing.done and outgoing.error is None:
                self.exchanges.discard(outgoing.prepared.publication.exchange)
            self._end(channel, lambda: self._user.adopt(channel))

    def on_refused(self, channel: PublishChannel, outgoing: PendingPublish, ack: bool) -> None:
        """Have the lane decide."""
        self._user.on_refused(channel, outgoing, ack)

    def on_closed(self, channel: PublishChannel, error: BaseException) -> None:
        """Have the lane decide; no other publication was on this channel."""
        outgoing = self._channels.get(channel)
        in_flight = channel.take_in_flight() or [one for one in [outgoing] if one is not None and not one.done]
        self._end(channel, lambda: self._user.after_close(channel, in_flight, error))

    def on_reply(self, correlation_id: str, body: bytes) -> None:
        """Hand on a reply."""
        self._user.on_reply(correlation_id, body)

    def _end(self, channel: PublishChannel, then: Callable[[], None]) -> None:
        self._channels.pop(channel, None)
        then()
        self.start()

    def tidy(self) -> None:
        """Close the channels of those that ended without a confirm: others wait for their places."""
        for channel, outgoing in list(self._channels.items()):
            if outgoing.done:
                self._end(channel, channel.close)

    def clear(self) -> None:
        """Forget all channels, which are gone, and what waits."""
        self._starting = False
        self._waiting.clear()
        self._channels.clear()
        self.exchanges.clear()
