"""Servers in which results are stored, private to the tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.stores.redis_server import RedisServer


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The server that all tests share; each uses a namespace or a database of its own."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def make_redis(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """Start servers for one test, with options of their own."""
    with ExitStack() as servers:

        def make(*options: str) -> RedisServer:
            folder = tmp_path / f"redis-{len(list(tmp_path.iterdir()))}"
            folder.mkdir()
            return servers.enter_context(RedisServer(folder, *options))

        yield make
