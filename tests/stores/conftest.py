"""The databases that hold results in these tests: private servers, tied to the test process."""

from __future__ import annotations

from tests.stores.redis_server import make_redis, redis_server, valkey_server

__all__ = ["make_redis", "redis_server", "valkey_server"]
