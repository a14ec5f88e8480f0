"""
Where results are stored while the bench measures: private servers, and an empty database for each measure.

Decides what is stored in the end, ours and Celery's, from what each has in its database. The values are read by the bench, not
by the library that has stored them.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

import psycopg
from tests.stores.postgres_server import PostgresServer
from tests.stores.redis_server import RedisServer

from bench.places import SideFailed

SQLITE, POSTGRESQL, REDIS = "SQLite", "PostgreSQL", "Redis"
DATABASES = (SQLITE, POSTGRESQL, REDIS)

CELERYS = "SELECT result FROM celery_taskmeta WHERE status = 'SUCCESS'"
LOOK = 0.005
PATIENCE = 60.0
READ_AT_ONCE = 1000


class Servers:
    """The servers of a run of the bench, each started when it is first needed."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    @cached_property
    def postgres(self) -> PostgresServer:
        """A PostgreSQL with the defaults of its package: each commit is written through to the disk."""
        server = PostgresServer()
        self._stack.callback(server.discard)
        server.start()
        return server

    @cached_property
    def redis(self) -> RedisServer:
        """A Redis without persistence."""
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="amqpworker-bench-"))
        return self._stack.enter_context(RedisServer(Path(folder)))

    def close(self) -> None:
        """End them, and remove what they have written."""
        self._stack.close()


@dataclass(frozen=True)
class Kind:
    """A database, and how a library uses it: the scheme of its URL, what finds the results, and what a stored result is."""

    database: str
    scheme: str
    find: str
    """The statement that selects the results of tasks that have succeeded, or a pattern of Redis's keys."""
    value: Callable[[bytes], str]


class Store(Protocol):
    """An empty database: its URL for the library that uses it, and what is in it."""

    url: str

    def count(self) -> int:
        """Return how many results are stored."""

    def values(self) -> list[str]:
        """Return the results that are stored."""


@dataclass(frozen=True)
class SqlStore:
    """A database that understands SQL."""

    url: str
    kind: Kind
    connect: Callable[[], Any]

    def count(self) -> int:
        """Return how many results are stored."""
        return int(self._rows(f"SELECT count(*) FROM ({self.kind.find}) AS found")[0][0])

    def values(self) -> list[str]:
        """Return the results that are stored."""
        return [self.kind.value(bytes(row[0])) for row in self._rows(self.kind.find)]

    def _rows(self, statement: str) -> list[Any]:
        with closing(self.connect()) as connection:
            return connection.execute(statement).fetchall()


@dataclass(frozen=True)
class KeyStore:
    """A Redis, in which nothing but results has keys."""

    url: str
    kind: Kind
    server: RedisServer

    def count(self) -> int:
        """Return how many results are stored."""
        with self.server.client() as client:
            return client.dbsize()

    def values(self) -> list[str]:
        """Return the results that are stored."""
        with self.server.client() as client:
            keys = list(client.scan_iter(self.kind.find, READ_AT_ONCE))
            portions = (keys[start : start + READ_AT_ONCE] for start in range(0, len(keys), READ_AT_ONCE))
            return [self.kind.value(value) for portion in portions for value in client.mget(portion)]


@contextmanager
def opened(servers: Servers, kind: Kind) -> Iterator[Store]:
    """Give an empty database, and remove it."""
    match kind.database:
        case "SQLite":
            with tempfile.TemporaryDirectory(prefix="amqpworker-bench-") as folder:
                path = Path(folder) / "results.db"
                yield SqlStore(f"{kind.scheme}:///{path}", kind, partial(sqlite3.connect, path))
        case "PostgreSQL":
            name = f"bench_{uuid.uuid4().hex[:8]}"
            servers.postgres.execute(f"CREATE DATABASE {name}")
            url = servers.postgres.url(name)
            try:
                yield SqlStore(
                    urlunsplit(urlsplit(url)._replace(scheme=kind.scheme)), kind, partial(psycopg.connect, url)
                )
            finally:
                servers.postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")
        case "Redis":
            servers.redis.command("FLUSHALL")
            yield KeyStore(servers.redis.url, kind, servers.redis)


def wait_until_stored(store: Store, count: int, alive: Callable[[], None]) -> int:
    """
    Wait until all results are stored, and return when they were, in nanoseconds since the epoch.

    Raises:
        SideFailed: they were not in time.
    """
    deadline = time.monotonic() + PATIENCE
    while (found := store.count()) < count:
        alive()
        if time.monotonic() > deadline:
            raise SideFailed(f"{found} of {count} results are stored {PATIENCE:.0f} s after the last task has ended")
        time.sleep(LOOK)
    return time.time_ns()


def check_values(store: Store, count: int) -> None:
    """
    Make sure that each task's result is stored once: that of task 7 begins with `7:`.

    Raises:
        SideFailed: that is not so.
    """
    numbers = sorted(int(value.partition(":")[0]) for value in store.values())
    if numbers != list(range(count)):
        raise SideFailed(f"{len(numbers)} results of {len(set(numbers))} tasks are stored, of {count}")


def _ours(reply: bytes) -> str:
    return str(json.loads(reply)["value"])


def _ours_in_redis(value: bytes) -> str:
    _, text, reply = value.split(b"\n", 2)
    return _ours(reply) if json.loads(text)["state"] == "done" else ""


def _celerys_in_redis(value: bytes) -> str:
    row = json.loads(value)
    return row["result"] if row["status"] == "SUCCESS" else ""


OURS = {
    SQLITE: Kind(SQLITE, "sqlite", "SELECT reply FROM result_rows WHERE state = 'done'", _ours),
    POSTGRESQL: Kind(POSTGRESQL, "postgresql", "SELECT reply FROM amqpworker_results WHERE state = 'done'", _ours),
    REDIS: Kind(REDIS, "redis", "amqpworker:*:result:*", _ours_in_redis),
}
CELERY = {
    SQLITE: Kind(SQLITE, "db+sqlite", CELERYS, json.loads),
    POSTGRESQL: Kind(POSTGRESQL, "db+postgresql+psycopg2", CELERYS, json.loads),
    REDIS: Kind(REDIS, "redis", "celery-task-meta-*", _celerys_in_redis),
}
