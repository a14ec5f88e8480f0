"""
Connections to PostgreSQL: how they are opened, and how long they wait.

Decides what a URL means, and when the server counts as silent. A child of a fork never writes to the socket of its parent, not
even to close it.
"""

from __future__ import annotations

import os
import re
import time
from typing import Any

import psycopg
from psycopg import pq
from psycopg.abc import RV, PQGen
from psycopg.adapt import Dumper
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from amqpworker.errors import ConfigError
from amqpworker.log.redaction import redact_url
from amqpworker.results.postgresql_errors import NoAnswer, is_permanent, reason
from amqpworker.results.postgresql_values import ArrayBytes

ANSWER_TIMEOUT = 15.0
"""Seconds without a response after which a statement fails: another program may have locked the table."""

LOOK_EVERY = 0.1
"""Seconds between two checks whether that time is over."""

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
            f"results={shown!r} is not a URL such as postgresql://user:password@host:5432/database, or PostgreSQL does not know "
            "one of its options."
        )
    name = f"amqpworker {namespace.encode('ascii', 'replace').decode()}"[:63]
    return make_conninfo("", **{**_DEFAULTS, "application_name": name, **given})
