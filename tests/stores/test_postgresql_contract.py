"""Results in PostgreSQL: what every store promises, directly and through pgbouncer in transaction mode."""

from __future__ import annotations

import pytest

from amqpworker.results.postgresql import PostgresStore
from amqpworker.testing import ResultStoreContract
from tests.stores.postgres_server import PostgresServer


class TestDirectly(ResultStoreContract):
    @pytest.fixture(autouse=True)
    def _database(self, postgres: PostgresServer, database: str) -> None:
        self.url = postgres.url(database)

    def open_store(self, namespace: str) -> PostgresStore:
        return PostgresStore(self.url, namespace)


class TestThroughPgbouncer(ResultStoreContract):
    @pytest.fixture(autouse=True)
    def _database(self, pgbouncer: int, database: str) -> None:
        self.url = f"postgresql://postgres@127.0.0.1:{pgbouncer}/{database}"

    def open_store(self, namespace: str) -> PostgresStore:
        return PostgresStore(self.url, namespace)
