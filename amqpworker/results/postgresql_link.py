"""
A connection to PostgreSQL that threads share, one at a time.

Decides when work is executed again: all of ours may be, since a row that is put twice is the same row. Decides also when a
connection is kept, and that a child of a fork opens its own.
"""

from __future__ import annotations

import math
import os
import select
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

import psycopg
from psycopg import pq

from amqpworker.errors import ResultStoreError
from amqpworker.lifecycle import LiveObjects
from amqpworker.results.postgresql_connection import Connection, Server
from amqpworker.results.postgresql_errors import CONFLICTS, NoAnswer, is_stale
from amqpworker.results.postgresql_schema import prepare

CANCEL_TIMEOUT = 1.0
MOST_CONFLICTS = 10
"""After this many conflicts with other transactions the last one is the caller's error."""

IN_USE = (
    "The results are in use by the code that was interrupted here: a signal handler or a finalizer (__del__) cannot use them at "
    "this moment."
)

_Result = TypeVar("_Result")


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
    def turn(self, patience: float = -1.0) -> Iterator[None]:
        """
        Be the only user for the time of a block.

        Raises ResultStoreError if the caller has interrupted a use of its thread, or after `patience` seconds, if that is not -1.
        """
        if self._pid != os.getpid():
            self.start_anew()
        lock = self._lock
        if not lock.acquire(timeout=patience):
            raise ResultStoreError(f"Other threads wait for {self.place}, which did not answer for {patience:g} s.")
        try:
            if self._in_use:
                raise ResultStoreError(IN_USE)
            self._in_use = True
            try:
                yield
            finally:
                self._in_use = False
        finally:
            lock.release()

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
                self._drop_unless_usable(error)
                if isinstance(error, CONFLICTS) and conflicts < MOST_CONFLICTS:
                    conflicts += 1
                elif was_open and isinstance(error, psycopg.Error) and is_stale(error):
                    was_open = False
                    self._drop()
                else:
                    raise

    def use(self, work: Callable[[Connection], _Result], answer_timeout: float = math.inf) -> _Result:
        """Wait for a turn, no longer than for an answer, and run: callers of a silent server do not wait one after the other."""
        with self.turn(self._server.answer_timeout):
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

    def _drop_unless_usable(self, error: BaseException) -> None:
        """Drop a connection that is closed, or on which a statement may still run: that is cancelled."""
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
