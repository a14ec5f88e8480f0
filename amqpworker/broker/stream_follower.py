"""
The connection of a worker process that follows streams: what is paused, what is cancelled.

It is a connection of its own: a request that a stream does not support, and the declaration of a stream where RabbitMQ's feature
flag for streams is off, end the whole connection. `stream_reader` decides what is read.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from amqpworker.broker.address import Address
from amqpworker.broker.connection_problem import ConnectionProblem
from amqpworker.broker.declarer import Declarer
from amqpworker.broker.io_thread import IOThread
from amqpworker.broker.labels import ConsumerTags
from amqpworker.broker.pika_connection import PikaConnection
from amqpworker.broker.stream_reader import FollowedStream, StreamReader
from amqpworker.errors import AmqpWorkerError, ConfigError
from amqpworker.settings import Settings

# What the streams hold is waited for as long as it arrives, and this long without any of it before it is given up for now.
READY_WITHIN = 5.0


class StreamFollower:
    """
    Follows streams over one connection, and connects again when that is lost; what was read before stays valid meanwhile.

    `on_ready` is called once, in the I/O thread or at `stop`: when each stream was read to its end, or the broker refuses it, or
    after `READY_WITHIN` seconds in which nothing was read. Without a connection this time passes only while `is_waited_for`
    returns true.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        settings: Settings,
        streams: Sequence[FollowedStream],
        *,
        owner: str | None = None,
        on_ready: Callable[[], None] = lambda: None,
        is_waited_for: Callable[[], bool] = lambda: True,
    ) -> None:
        self.keeper = IOThread("follower", addresses, settings, self, user_reports_errors=True)
        self.keeper.owner = owner
        self.problem: ConfigError | None = None
        """Why the broker cannot have streams, if it cannot."""
        tags = ConsumerTags()
        self._readers = {one.name: StreamReader(one, self.keeper, tags, self._on_change) for one in streams}
        self._changed = threading.Condition()
        self._on_ready: Callable[[], None] | None = on_ready
        self._is_waited_for = is_waited_for
        self._is_connected = False
        self._ready_at = float("inf")
        self._positions = [one.position for one in self._readers.values()]
        # The other addresses may be better than the first.
        self._addresses_to_try = len(addresses)

    # ---- from any thread --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Connect and read."""
        self._ready_at = time.monotonic() + READY_WITHIN
        self.keeper.start()

    def stop(self, grace: float) -> bool:
        """Close the connection; return false if that takes longer than `grace` seconds."""
        return self.keeper.stop(grace)

    def caught_up(self, name: str, timeout: float) -> bool:
        """
        Wait until everything was read that was in a stream when it was subscribed to.

        Returns false if that is not so within `timeout` seconds, or at once if the stream cannot be read now.
        """
        reader = self._readers[name]
        with self._changed:
            self._changed.wait_for(lambda: reader.is_caught_up or reader.failure is not None, timeout)
        return reader.is_caught_up

    def failure(self, name: str) -> AmqpWorkerError | None:
        """Return why a stream cannot be read now, None if it can or is not known yet."""
        return self._readers[name].failure

    # ---- in the I/O thread ------------------------------------------------------------------------------------------

    def on_opened(self, connection: PikaConnection) -> None:
        """Read each stream."""
        self._is_connected = True
        self._addresses_to_try = 0
        declarer = Declarer(connection, self.keeper)
        for reader in self._readers.values():
            reader.on_opened(connection, declarer)

    def on_lost(self, problem: ConnectionProblem) -> None:
        """Wait for the next connection."""
        self._is_connected = False
        self._addresses_to_try -= 1
        if self._addresses_to_try > 0 and not self.keeper.is_stopping:
            return
        error = problem.error()
        if problem.has_no_streams and isinstance(error, ConfigError):
            self.problem = error
            for reader in self._readers.values():
                reader.refuse(error)
        for reader in self._readers.values():
            reader.on_lost(error)
        if self.problem is not None or self.keeper.is_stopping:
            self._be_ready()

    def on_wake(self) -> None:
        """Do nothing: there are no requests."""

    def on_tick(self) -> bool:
        """Stop waiting for streams after a while; return whether they are waited for."""
        if not (self._is_connected or self._is_waited_for()):
            self._ready_at = time.monotonic() + READY_WITHIN
        if self._on_ready is not None and time.monotonic() >= self._ready_at:
            positions = [one.position for one in self._readers.values()]
            if positions == self._positions:
                self._be_ready()
            self._positions, self._ready_at = positions, time.monotonic() + READY_WITHIN
        return self._on_ready is not None

    def _on_change(self) -> None:
        with self._changed:
            self._changed.notify_all()
        # Without a connection nothing is known: a consumer that connects first would run what is paused or cancelled.
        if self._is_connected and all(one.is_caught_up or one.failure is not None for one in self._readers.values()):
            self._be_ready()

    def _be_ready(self) -> None:
        on_ready, self._on_ready = self._on_ready, None
        if on_ready is not None:
            on_ready()
