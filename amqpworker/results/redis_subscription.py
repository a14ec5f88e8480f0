"""
Changes of rows in a Redis or Valkey server, as it announces them.

Decides that a process is sent only changes of the rows that it waits for: each has a channel of its own. What is announced while
the connection is down is lost (https://redis.io/docs/latest/develop/pubsub/): after a new connection any row may have changed, and
each row after its own SUBSCRIBE.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Collection, Sequence

from redis import exceptions

from amqpworker.errors import ConfigError, ResultStoreError
from amqpworker.lifecycle import Waker
from amqpworker.results.redis_address import RedisAddress
from amqpworker.results.redis_connections import Answer, RedisConnection, new_connection, send, socket_of
from amqpworker.results.redis_errors import ERRORS, trouble
from amqpworker.results.redis_rows import Keys, packed

LONGEST_WAIT = 3600.0
"""Seconds of one `poll`, which has a limit. A longer wait has several."""

MOST_CHANNELS = 1000
"""Of one command: the server answers each channel by itself, and those answers are read before the next command."""


class RedisSubscription:
    """A `Subscription` to the rows that are watched."""

    poll_every = 1.0

    def __init__(self, address: RedisAddress, keys: Keys) -> None:
        self._address = address
        self._keys = keys
        self._watched: dict[bytes, str] = {}
        self._unwanted: list[bytes] = []
        self._connection: RedisConnection | None = None
        self._pid = os.getpid()
        self._waker = Waker()

    def watch(self, ids: Collection[str]) -> None:
        """From now on, report changes of these rows, and first of all that each may have changed."""
        added = {channel: one for one in ids if (channel := self._keys.of(one)) not in self._watched}
        self._watched.update(added)
        self._unsubscribe()
        self._send(b"SUBSCRIBE", list(added))

    def unwatch(self, ids: Collection[str]) -> None:
        """Stop reporting changes of these rows."""
        # sent with the next command or wait, for all of them at once
        self._unwanted += [channel for one in ids if self._watched.pop(channel := self._keys.of(one), None) is not None]

    def wait(self, timeout: float) -> Collection[str] | None:
        """Return the ids of rows that have changed, none of them after `timeout` seconds or `wake`; `None`: any may have."""
        self._start_anew_if_forked()
        self._unsubscribe()
        until = time.monotonic() + timeout
        try:
            while True:
                # the socket is gone if an exception from another thread interrupted the reader
                if self._connection is None or socket_of(self._connection) is None:
                    self._connect()
                    return None
                if (changed := self._changed(self._connection)) or changed is None:
                    return changed
                if self._is_over(until):
                    return ()
        except ERRORS as error:
            self.close()
            reason, is_permanent = trouble(error, self._address)
            kind = ConfigError if is_permanent else ResultStoreError
            raise kind(f"Changes of results cannot be read from {self._address}: {reason}.") from error

    def wake(self) -> None:
        """End the present `wait`, or the next one."""
        self._waker.set()

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()

    def _start_anew_if_forked(self) -> None:
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._waker = Waker()
            self.close()

    def _connect(self) -> None:
        connection = new_connection(self._address)
        try:
            connection.connect()
            channels = list(self._watched)
            for start in range(0, len(channels), MOST_CHANNELS):
                some = channels[start : start + MOST_CHANNELS]
                send(connection, packed(b"SUBSCRIBE", *some))
                confirmed = 0
                while confirmed < len(some):
                    confirmed += connection.read_response()[0] == b"subscribe"
        except BaseException:
            connection.disconnect()
            raise
        self._connection = connection

    def _unsubscribe(self) -> None:
        unwanted, self._unwanted = self._unwanted, []
        self._send(b"UNSUBSCRIBE", unwanted)

    def _send(self, command: bytes, channels: Sequence[bytes]) -> None:
        self._start_anew_if_forked()
        if self._connection is None:
            return  # `_connect` subscribes
        try:
            for start in range(0, len(channels), MOST_CHANNELS):
                send(self._connection, packed(command, *channels[start : start + MOST_CHANNELS]))
        except ERRORS:
            self.close()

    def _changed(self, connection: RedisConnection) -> Collection[str] | None:
        """Return the ids of which something was announced; `None` if the connection is lost and was opened again."""
        changed = set()
        try:
            while connection.can_read(0):
                kind, channel = _announced(connection.read_response())
                if kind in (b"message", b"subscribe") and channel in self._watched:
                    changed.add(self._watched[channel])
        except exceptions.ResponseError:
            raise
        except (exceptions.ConnectionError, OSError):
            self.close()
            self._connect()
            return None
        return changed

    def _is_over(self, until: float) -> bool:
        """Wait for something to be read; return whether the wait is over."""
        left = until - time.monotonic()
        found = None if self._connection is None else socket_of(self._connection)
        if found is None:
            return left <= 0
        poller = select.poll()
        poller.register(self._waker.fd, select.POLLIN)
        poller.register(found, select.POLLIN)
        ready = poller.poll(max(0.0, min(left, LONGEST_WAIT)) * 1000)
        if any(fd == self._waker.fd for fd, _ in ready):
            self._waker.clear()
            return True
        return not ready and until <= time.monotonic()


def _announced(answer: Answer) -> tuple[Answer, Answer]:
    return (answer[0], answer[1]) if isinstance(answer, list) and len(answer) > 1 else (None, None)
