"""
Changes of rows in PostgreSQL, as its notifications report them.

Decides whether notifications arrive at all: through a pooler in transaction mode LISTEN succeeds, but none arrives
(https://www.pgbouncer.org/features.html). So each new connection first waits for a test of ours, which another connection sends. A
standby has none at all.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from uuid import uuid4

import psycopg
from psycopg import errors

from amqpworker.errors import ResultStoreError
from amqpworker.lifecycle import Waker
from amqpworker.results.postgresql_connection import Connection, Server
from amqpworker.results.postgresql_errors import reason
from amqpworker.results.postgresql_sql import CHANNEL
from amqpworker.results.postgresql_values import ids_in

TEST_TIMEOUT = 1.0
"""Seconds within which our own notification must arrive."""

POLL_EVERY = 1.0
POLL_EVERY_WITHOUT_NOTIFICATIONS = 0.1


class PostgresSubscription:
    """
    A `Subscription` to the rows of a namespace: it reports the changes of all of them.

    `notify` sends a payload over another connection; `on_missing` is called if notifications do not arrive.
    """

    def __init__(
        self, server: Server, namespace: str, notify: Callable[[str], None], on_missing: Callable[[], None]
    ) -> None:
        self._server = server
        self._namespace = namespace
        self._notify = notify
        self._on_missing = on_missing
        self._pid = os.getpid()
        self._connection: Connection | None = None
        self._must_poll = False
        # our own notification, while it is waited for, and until when (monotonic)
        self._test: str | None = None
        self._test_until = 0.0
        self._waker = Waker()

    @property
    def poll_every(self) -> float:
        """Seconds after which rows are to be read without a hint."""
        return POLL_EVERY_WITHOUT_NOTIFICATIONS if self._must_poll else POLL_EVERY

    def watch(self, ids: Collection[str]) -> None:
        """Do nothing: all changes are reported."""

    def unwatch(self, ids: Collection[str]) -> None:
        """Do nothing: all changes are reported."""

    def wait(self, timeout: float) -> Collection[str] | None:
        """Return the ids of rows that have changed, none of them after `timeout` seconds or `wake`; `None`: any may have."""
        if self._pid != os.getpid():
            self._start_anew()
        try:
            if self._connection is not None:
                with suppress(psycopg.Error):
                    if self._test is None:
                        return self._hints(self._connection, timeout)
                    self._await_test(self._connection)
                    return None
                # it was lost: perhaps the server was restarted
                self._drop()
            elif self._must_poll:
                self._waker.wait(timeout)
                return ()
            self._listen()
        except errors.ReadOnlySqlTransaction:
            # a standby has no notifications
            self._begin_polling()
        except BaseException as error:
            self._drop()
            if not isinstance(error, psycopg.Error | OSError):
                raise
            text = f"Changes of results cannot be read from {self._server.place}: {reason(error)}."
            raise ResultStoreError(text) from error
        return None

    def wake(self) -> None:
        """End the present `wait`, or the next one."""
        # a child shares the parent's descriptor until it has one of its own
        if self._pid != os.getpid():
            self._start_anew()
        self._waker.set()

    def close(self) -> None:
        """Close the connection."""
        if self._pid != os.getpid():
            self._start_anew()
        self._drop()
        self._must_poll = False

    def _start_anew(self) -> None:
        """Start without a connection in a forked child: the server belongs to the parent."""
        self._pid = os.getpid()
        self._connection, self._test = None, None
        self._waker = Waker()

    def _drop(self) -> None:
        connection, self._connection, self._test = self._connection, None, None
        if connection is not None:
            connection.close()

    def _listen(self) -> None:
        self._connection = connection = self._server.connect()
        connection.execute(f"LISTEN {CHANNEL}")
        # no namespace is written like this
        self._test = f"\\test {uuid4().hex}"
        self._notify(self._test)
        self._test_until = time.monotonic() + TEST_TIMEOUT
        self._await_test(connection)

    def _await_test(self, connection: Connection) -> None:
        """Wait for our own notification; before it arrives, `wake` or another one ends this, and any row may have changed."""
        while self._test is not None:
            received = _received(connection)
            left = self._test_until - time.monotonic()
            if self._test in received:
                self._test = None
            elif left <= 0:
                with suppress(psycopg.Error):
                    # the pooler's connection would keep listening for no one
                    connection.execute("UNLISTEN *")
                self._begin_polling()
            elif received or (self._ends(connection, left) and time.monotonic() < self._test_until):
                return

    def _begin_polling(self) -> None:
        """Give up notifications: they do not arrive."""
        self._drop()
        self._must_poll = True
        self._on_missing()

    def _hints(self, connection: Connection, timeout: float) -> Collection[str] | None:
        until = time.monotonic() + timeout
        while True:
            ids: list[str] = []
            for payload in _received(connection):
                found = ids_in(payload, self._namespace)
                if found is None:
                    return None
                ids += found
            if ids or self._ends(connection, until - time.monotonic()):
                return ids

    def _ends(self, connection: Connection, timeout: float) -> bool:
        """Wait until there is something to read; return whether the time is up or `wake` was called."""
        ready = _wait_for_input(timeout, connection.fileno(), self._waker.fd)
        if self._waker.fd in ready:
            self._waker.clear()
            return True
        return not ready


def _received(connection: Connection) -> list[str]:
    """Return the payloads that have arrived."""
    connection.pgconn.consume_input()
    found = []
    while (notification := connection.pgconn.notifies()) is not None:
        found.append(notification.extra.decode("utf-8", "replace"))
    return found


def _wait_for_input(timeout: float, *fds: int) -> set[int]:
    """Wait until there is something to read, at most `timeout` seconds; return the descriptors that have something."""
    poller = select.poll()
    for fd in fds:
        poller.register(fd, select.POLLIN)
    return {fd for fd, _ in poller.poll(max(0.0, timeout) * 1000)}
