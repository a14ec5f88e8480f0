"""
Connections to PostgreSQL: how they are opened, how long they wait, who uses them.

Decides when a statement is executed again: all of ours may be, since a row that is put twice is the same row. A child of a fork
never writes to the socket of its parent, not even to close it.
"""

from __future__ import annotations

import math
import os
import re
import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import psycopg
from psycopg import pq
from psycopg.abc import RV, PQGen
from psycopg.adapt import Dumper
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from amqpworker.errors import ConfigError, ResultStoreError
from amqpworker.lifecycle import LiveObjects
from amqpworker.log.redaction import redact_url
from amqpworker.results.postgresql_errors import CONFLICTS, NoAnswer, is_permanent, is_stale, reason
from amqpworker.results.postgresql_schema import prepare
from amqpworker.results.postgresql_values import ArrayBytes

ANSWER_TIMEOUT = 15.0
"""Seconds that a statement may take, as long as others lock the table, for example."""

LOOK_EVERY = 0.1
CANCEL_TIMEOUT = 1.0
MOST_CONFLICTS = 10

_DEFAULTS = {
    "connect_timeout": "10",
    "client_encoding": "UTF8",
    # a host that has gone is noticed within a minute
    "keepalives": "1",
    "keepalives_idle": "20",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
}
IN_USE = (
    "The results are in use by the code that was interrupted here: a signal handler or a finalizer (__del__) cannot use them at "
    "this moment."
)

_Result = TypeVar("_Result")


class Connection(psycopg.Connection[Any]):
    """A connection in autocommit mode that waits `answer_timeout` seconds for the server, and that no forked child uses."""

    answer_timeout = ANSWER_TIMEOUT

    def __init__(self, pgconn: pq.abc.PGconn) -> None:
        super().__init__(pgconn)
        self._pid = os.getpid()

    def __del__(self, *_: Any) -> None:
        """Leave it to libpq's object, which closes nothing in a child."""

    def wait(self, gen: PQGen[RV], interval: float = LOOK_EVERY, timeout: float | None = None) -> RV:
        """Wait for the server, as psycopg's own connection does; raises NoAnswer."""
        if self._pid != os.getpid():
            raise psycopg.OperationalError("the connection was opened by the parent of this process")
        seconds = self.answer_timeout if timeout is None else min(timeout, self.answer_timeout)
        return super().wait(_within(gen, seconds), min(interval, LOOK_EVERY))


def _within(generator: PQGen[RV], seconds: float) -> PQGen[RV]:
    """Pass on what psycopg waits for, and raise NoAnswer once the server has been silent for too long."""
    try:
        wanted = next(generator)
        until = time.monotonic() + seconds
        while True:
            ready = yield wanted
            now = time.monotonic()
            if ready:
                until = now + seconds
            elif now > until:
                raise NoAnswer(f"the server did not answer within {seconds:g} s")
            wanted = generator.send(ready)
    except StopIteration as ended:
        result: RV = ended.value
        return result


class _ArrayDumper(Dumper):
    """Passes an array on as it is."""

    format = pq.Format.BINARY

    def dump(self, obj: Any) -> bytes:
        return bytes(obj)


class Server:
    """Where results are, and how to connect to it."""

    def __init__(self, url: str, namespace: str, answer_timeout: float = ANSWER_TIMEOUT) -> None:
        self.place = redact_url(url)
        self.answer_timeout = answer_timeout
        self._conninfo = _conninfo(url, namespace)

    def connect(self) -> Connection:
        """Open a connection; raises ConfigError if that will never succeed, and psycopg's errors."""
        try:
            # a prepared statement would be missing on the next server connection of a pooler
            made = Connection.connect(self._conninfo, autocommit=True, prepare_threshold=None)
        except psycopg.Error as error:
            if is_permanent(error):
                raise ConfigError(f"Results cannot be stored in {self.place}: {reason(error)}.") from error
            raise
        made.answer_timeout = self.answer_timeout
        made.adapters.register_dumper(ArrayBytes, _ArrayDumper)
        # else psycopg would keep each of them: a pooler may pass on notifications for other clients
        made.add_notify_handler(lambda _: None)
        return made


def _conninfo(url: str, namespace: str) -> str:
    shown = redact_url(url)
    before = url.partition("?")[0]
    if "@" in before.partition("://")[2].partition("/")[2] or before.count("@") > 1:
        raise ConfigError(f"results={shown!r}: write '@' and '/' in a password as %40 and %2F.")
    try:
        given = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        # not `from`: its text may have a part of the password
        given = None
    if given is None or not re.fullmatch(r"[0-9,]*", str(given.get("port", ""))):
        raise ConfigError(
            f"results={shown!r} is not a URL as postgresql://user:password@host:5432/database is, or PostgreSQL does not know one of "
            "its options."
        )
    name = f"amqpworker {namespace.encode('ascii', 'replace').decode()}"[:63]
    return make_conninfo("", **{**_DEFAULTS, "application_name": name, **given})


class PostgresLink:
    """A connection that one thread at a time uses; it opens at its first use, and again after a fork or when it was lost."""

    def __init__(self, server: Server, declare: bool) -> None:
        self._server = server
        self._declare = declare
        self._pid = os.getpid()
        # reentrant, so that code which interrupts a use in its own thread is refused instead of waiting for ever
        self._lock = threading.RLock()
        self._in_use = False
        self._connection: Connection | None = None
        LINKS.add(self)

    @property
    def place(self) -> str:
        """The URL without its password."""
        return self._server.place

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Be the only user for the time of a block; raises ResultStoreError if the caller has interrupted a use of its thread."""
        if self._pid != os.getpid():
            self.start_anew()
        with self._lock:
            if self._in_use:
                raise ResultStoreError(IN_USE)
            self._in_use = True
            try:
                yield
            finally:
                self._in_use = False

    def run(self, work: Callable[[Connection], _Result], answer_timeout: float = math.inf) -> _Result:
        """
        Return what `work` returns for the connection; the caller has the turn.

        It is called again after a conflict with another transaction, and once if a connection from an earlier use was lost.
        Raises what it raises, and ConfigError if the database can never be used.
        """
        conflicts, was_open = 0, self._is_alive()
        while True:
            try:
                connection = self._opened()
                connection.answer_timeout = min(answer_timeout, self._server.answer_timeout)
                return work(connection)
            except BaseException as error:
                self._check_usable(error)
                if isinstance(error, CONFLICTS) and conflicts < MOST_CONFLICTS:
                    conflicts += 1
                elif was_open and isinstance(error, psycopg.Error) and is_stale(error):
                    was_open = False
                    self._drop()
                else:
                    raise

    def use(self, work: Callable[[Connection], _Result], answer_timeout: float = math.inf) -> _Result:
        """Wait for a turn, and run."""
        with self.turn():
            return self.run(work, answer_timeout)

    def close(self) -> None:
        """Close the connection, after the thread that uses it; raises ResultStoreError if that is the caller's own."""
        with self.turn():
            self._drop()

    def start_anew(self) -> None:
        """Start without a connection in a forked child; that of the parent stays as it is."""
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._in_use = False
        self._connection = None

    def _is_alive(self) -> bool:
        """Return whether the connection is open, without asking the server: if it has closed it, there is something to read."""
        if self._connection is None:
            return False
        with suppress(psycopg.Error, OSError):
            poller = select.poll()
            poller.register(self._connection.fileno(), select.POLLIN)
            if not poller.poll(0):
                return True
        self._drop()
        return False

    def _opened(self) -> Connection:
        if self._connection is None:
            made = self._server.connect()
            try:
                prepare(made, self._declare, self._server.place)
            except BaseException:
                made.close()
                raise
            self._connection = made
        return self._connection

    def _check_usable(self, error: BaseException) -> None:
        """Drop a connection that is closed, or on which something may still run."""
        connection = self._connection
        if connection is None:
            return
        if isinstance(error, NoAnswer):
            # it would wait for a lock, for example, and each attempt would add another one
            with suppress(psycopg.Error, OSError):
                if psycopg.capabilities.has_cancel_safe():
                    connection.cancel_safe(timeout=CANCEL_TIMEOUT)
        if connection.closed or connection.pgconn.transaction_status != pq.TransactionStatus.IDLE:
            self._drop()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


LINKS: LiveObjects[PostgresLink] = LiveObjects()


def _after_in_child() -> None:
    for link in LINKS.all():
        link.start_anew()


os.register_at_fork(after_in_child=_after_in_child)
