"""What every result store must do, in Redis: over TCP and a Unix domain socket, and in Valkey."""

from __future__ import annotations

import itertools

import pytest

from amqpworker.results.store import ResultStore, open_store
from amqpworker.testing import ResultStoreContract
from tests.stores.redis_server import RedisServer

_numbers = itertools.count()


class TestRedis(ResultStoreContract):
    """Each test has a namespace of its own."""

    @pytest.fixture(autouse=True)
    def _server(self, redis_server: RedisServer) -> None:
        self.url = redis_server.url
        self.prefix = f"{next(_numbers)}"

    def open_store(self, namespace: str) -> ResultStore:
        return open_store(self.url, f"{self.prefix}:{namespace}")


class TestValkey(TestRedis):
    @pytest.fixture(autouse=True)
    def _server(self, valkey_server: RedisServer) -> None:
        with valkey_server.client() as client:
            assert "valkey_version" in client.info("server")
        self.url = valkey_server.url.replace("redis", "valkey", 1)
        self.prefix = f"{next(_numbers)}"


class TestUnixSocket(TestRedis):
    @pytest.fixture(autouse=True)
    def _server(self, redis_server: RedisServer) -> None:
        self.url = f"unix://{redis_server.socket}?db=3"
        self.prefix = f"{next(_numbers)}"
