"""A worker and its callers with results in Redis, against a real broker."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from amqpworker import App, as_completed, gather
from amqpworker.errors import ConfigError, ResultStoreError
from tests.stores.redis_server import RedisServer
from tests.support import Broker, wait_until
from tests.workers import running

QUEUE = "work"

MakeApp = Callable[..., App]
MakeRedis = Callable[..., RedisServer]


def test_each_result_is_there_although_the_server_was_killed(
    vhost: Broker, make_app: MakeApp, make_redis: MakeRedis
) -> None:
    server = make_redis("appendonly", "yes", "appendfsync", "always")
    app = make_app(results=server.url)
    ran: list[int] = []

    @app.task(name="halve", queue=QUEUE)
    def halve(n: int) -> float:
        ran.append(n)
        return n / 2

    def store_answers() -> bool:
        store = app.store()
        return store is not None and store.check_writable() is None

    with running(app, threads=4):
        sent = app.send_many(halve.message(n) for n in range(400))
        assert sent[0].result(timeout=20) == 0.0
        wait_until(lambda: len(ran) > 40, what="some tasks have run")
        server.kill()
        server.start()
        wait_until(store_answers, timeout=30, what="the server answers again")
        assert gather(sent, timeout=60) == [n / 2 for n in range(400)]
        vhost.wait_for_count(QUEUE, 0)


def test_results_of_another_process_are_returned_as_they_are_stored(
    vhost: Broker, make_app: MakeApp, redis_server: RedisServer
) -> None:
    worker, caller = (make_app(results=redis_server.url) for _ in range(2))
    go = [threading.Event() for _ in range(3)]

    @worker.task(name=f"{vhost.vhost}.hold", queue=QUEUE)
    def hold(number: int) -> int:
        go[number].wait(30)
        return number

    remote = caller.remote(name=f"{vhost.vhost}.hold", queue=QUEUE)(hold.function)
    with running(worker, threads=3):
        sents = caller.send_many(remote.message(number) for number in range(3))
        found = []
        go[2].set()
        for sent in as_completed(sents, timeout=20):
            found.append(sent.result(timeout=0))
            go[found[-1] - 1].set()
        assert found == [2, 1, 0]
        assert [sent.status().state for sent in sents] == ["done"] * 3
        assert caller.result(sents[0].id) == 0


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
