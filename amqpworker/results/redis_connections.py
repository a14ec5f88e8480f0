"""
Connections to a Redis or Valkey server, a few for each process, shared by its threads.

Decides that what was sent on a lost connection is sent once more on a new one, and that a child of a fork opens its own. What is
sent must be harmless if it is carried out twice.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeAlias, TypeVar, cast

from redis import exceptions
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection

from amqpworker.results.redis_address import RedisAddress

MOST_CONNECTIONS = 4
"""Of one process. A thread that finds all of them in use waits for one."""

LONGEST_TURN = 10.0
"""Seconds after which a thread that waits opens a connection all the same: one that had its turn may have been interrupted."""

Answer: TypeAlias = Any
"""What redis-py makes of an answer; an error of a single command is a ResponseError."""

_Result = TypeVar("_Result")


class RedisConnection(Protocol):
    """What is used of redis-py's `Connection`."""

    def connect(self) -> None:
        """Connect unless it is connected."""

    def disconnect(self) -> None:
        """Close the socket; that of a parent stays open there."""

    def read_response(self) -> Answer:
        """Return the next answer."""

    def can_read(self, timeout: float) -> bool:
        """Return whether there is an answer, or a part of one."""


def new_connection(address: RedisAddress) -> RedisConnection:
    """Return a connection that is not open yet."""
    kind: Any = UnixDomainSocketConnection if address.path else SSLConnection if address.tls else Connection
    return cast(RedisConnection, kind(protocol=2, **address.parameters))


def socket_of(connection: RedisConnection) -> socket.socket | None:
    """Return the socket of a connection, or `None` if it is not open."""
    found: socket.socket | None = connection._sock  # type: ignore[attr-defined]  # noqa: SLF001 - no public name for it
    return found


def exchange(connection: RedisConnection, commands: Sequence[bytes]) -> list[Answer]:
    """
    Send commands at once and return their answers, in which an error is a value.

    Raises redis-py's errors if an answer is missing, and a ResponseError if the server does not accept what was sent at all.
    """
    connection.connect()
    try:
        send(connection, b"".join(commands))
    except OSError as error:
        # it may have answered before it closed the connection
        if not isinstance(error, TimeoutError):
            with suppress(exceptions.ConnectionError, OSError):
                _answer(connection)
        raise
    answers = [_answer(connection) for _ in commands]
    if any(isinstance(answer, exceptions.ReadOnlyError | exceptions.MasterDownError) for answer in answers):
        # after a failover the same address may lead to the new primary, but not this connection
        connection.disconnect()
    return answers


def send(connection: RedisConnection, data: bytes) -> None:
    """Send bytes; unlike redis-py, keep the connection if that fails, so that answers can be read."""
    found = socket_of(connection)
    if found is None:
        raise exceptions.ConnectionError("it is not open")
    found.sendall(data)


def _answer(connection: RedisConnection) -> Answer:
    try:
        return connection.read_response()
    except exceptions.ResponseError as error:
        if "Protocol error" in str(error):
            raise
        return error


class _Pool:
    """The connections of one process, until they are closed."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.idle: deque[RedisConnection] = deque()
        # without a lock of its own, which a fork or a signal handler might find held
        self.turns: SimpleQueue[None] = SimpleQueue()
        for _ in range(MOST_CONNECTIONS):
            self.turns.put(None)

    def wait_for_turn(self) -> None:
        try:
            self.turns.get(timeout=LONGEST_TURN)
        except Empty:
            return

    def end_turn(self) -> None:
        if self.turns.qsize() < MOST_CONNECTIONS:
            self.turns.put(None)


class RedisConnections:
    """Connections that any number of threads and forked processes use."""

    def __init__(self, address: RedisAddress) -> None:
        self._address = address
        self._pool = _Pool()

    def use(self, work: Callable[[RedisConnection], _Result]) -> _Result:
        """Return what `work` returns. It is called again, with a new connection, if the one that it was called with is lost."""
        pool = self._pool
        if pool.pid != os.getpid():
            pool = self._pool = _Pool()
        pool.wait_for_turn()
        try:
            return self._use(pool, work)
        finally:
            pool.end_turn()

    def close(self) -> None:
        """Close the connections; those that are in use are closed after that."""
        pool, self._pool = self._pool, _Pool()
        with suppress(IndexError):  # none is left
            while True:
                pool.idle.pop().disconnect()

    def _use(self, pool: _Pool, work: Callable[[RedisConnection], _Result]) -> _Result:
        try:
            connection = pool.idle.pop()
        except IndexError:
            return self._work_on(new_connection(self._address), pool, work)
        try:
            return self._work_on(connection, pool, work)
        except (exceptions.ConnectionError, OSError) as error:
            if not is_lost(error):
                raise
        # it is disconnected by now, so that it connects again
        return self._work_on(connection, pool, work)

    def _work_on(self, connection: RedisConnection, pool: _Pool, work: Callable[[RedisConnection], _Result]) -> _Result:
        """Call `work`, and keep the connection for the next use; not if `work` fails, since answers may be unread then."""
        try:
            result = work(connection)
        except BaseException:
            connection.disconnect()
            raise
        if pool is self._pool and len(pool.idle) < MOST_CONNECTIONS:
            pool.idle.append(connection)
        else:
            connection.disconnect()
        return result


def is_lost(error: BaseException) -> bool:
    """Return whether the connection was lost, and may be opened again at once; one that is silent is not."""
    refused = (exceptions.AuthenticationError, exceptions.AuthorizationError, exceptions.BusyLoadingError, TimeoutError)
    return isinstance(error, exceptions.ConnectionError | OSError) and not isinstance(error, refused)
