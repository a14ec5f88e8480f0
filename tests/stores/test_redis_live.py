"""A worker and its callers with results in Redis, against a real broker: what only Redis does."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from amqpworker import App
from amqpworker.errors import ConfigError, ResultStoreError
from tests.stores.redis_server import RedisServer
from tests.support import Broker, wait_until
from tests.workers import running

QUEUE = "work"

MakeApp = Callable[..., App]
MakeRedis = Callable[..., RedisServer]


def test_a_full_server_keeps_messages_in_their_queue_until_it_has_space(
    vhost: Broker, make_app: MakeApp, make_redis: MakeRedis
) -> None:
    server = make_redis("maxmemory", "1mb")  # less than it needs for itself
    app = make_app(results=server.url)

    @app.task(name="halve", queue=QUEUE)
    def halve(n: int) -> float:
        return n / 2

    with running(app, threads=2):
        sent = halve.send(3)
        wait_until(lambda: server.command("INFO", "stats") is not None and full(app), what="it is full")
        assert sent.status().state == "pending"
        server.command("CONFIG", "SET", "maxmemory", "0")
        assert sent.result(timeout=30) == 1.5
        vhost.wait_for_count(QUEUE, 0)


def full(app: App) -> bool:
    store = app.store()
    assert store is not None
    return "its memory is full" in str(store.check_writable())


def test_a_worker_does_not_start_with_a_server_that_evicts(make_app: MakeApp, make_redis: MakeRedis) -> None:
    server = make_redis("maxmemory", "100mb", "maxmemory-policy", "allkeys-lru")
    app = make_app(results=server.url)

    @app.task(name="nothing", queue=QUEUE)
    def nothing() -> None: ...

    with pytest.raises(ConfigError, match="deletes results without notice"), running(app, threads=1):
        pass


def test_a_caller_gets_an_error_while_the_server_is_away(
    vhost: Broker, make_app: MakeApp, make_redis: MakeRedis
) -> None:
    server = make_redis()
    app = make_app(results=server.url)

    @app.task(name="never", queue=QUEUE)
    def never() -> None: ...

    sent = never.send()
    server.kill()
    with pytest.raises(ResultStoreError, match="the connection was refused"):
        sent.result(timeout=5)
    with pytest.raises(ResultStoreError, match="the connection was refused"):
        sent.status()
