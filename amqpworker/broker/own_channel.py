"""A channel that is opened when it is first used, and again after it was closed."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec

from amqpworker.broker.connection import Channel, ChannelError, ChannelListener, Connection, OnClosed

_P = ParamSpec("_P")


class OwnChannel:
    """
    The channel of one user, opened when it is first used; after it was closed, the next use opens another.

    `on_closed` is called when the broker closes it or it cannot be opened, not after `close`.
    """

    def __init__(self, connection: Connection, on_closed: OnClosed) -> None:
        self._connection = connection
        self._on_closed = on_closed
        self._channel: Channel | None = None
        # Counts the channels, so that callbacks of one that we closed are ignored.
        self._count = 0

    def use(self, on_open: Callable[[Channel], None]) -> None:
        """Call `on_open` with the channel, at once if it is open."""
        if self._channel is not None:
            on_open(self._channel)
            return
        self._count += 1
        count = self._count

        def on_opened(channel: Channel) -> None:
            if count == self._count:
                self._channel = channel
                on_open(channel)
            else:
                channel.close()

        def on_closed(error: ChannelError) -> None:
            if count == self._count:
                self._channel = None
                self._on_closed(error)

        self._connection.open_channel(ChannelListener(), on_opened, on_closed)

    def unless_closed(self, callback: Callable[_P, None]) -> Callable[_P, None]:
        """Return a callback of the present channel that does nothing once `close` was called."""
        count = self._count

        def call(*args: _P.args, **kwargs: _P.kwargs) -> None:
            if count == self._count:
                callback(*args, **kwargs)

        return call

    def close(self) -> None:
        """Close the channel without waiting for anything that was asked on it."""
        self._count += 1
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()
