"""A worker and its callers with results on a server, against a real broker: what holds for each server."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from amqpworker import App, as_completed, gather
from tests.stores.postgres_server import PostgresServer
from tests.stores.redis_server import RedisServer
from tests.support import Broker, wait_until
from tests.workers import running

QUEUE = "work"

MakeApp = Callable[..., App]


@dataclass(frozen=True)
class Place:
    """Where results are stored: a URL, and the server behind it."""

    url: str
    server: PostgresServer | RedisServer


@pytest.fixture(params=["postgresql", "pgbouncer", "redis"])
def place(request: pytest.FixtureRequest) -> Place:
    if request.param == "redis":
        redis = request.getfixturevalue("make_redis")("appendonly", "yes", "appendfsync", "always")
        return Place(redis.url, redis)
    postgres, database = (request.getfixturevalue(name) for name in ("postgres", "database"))
    if request.param == "pgbouncer":
        return Place(f"postgresql://postgres@127.0.0.1:{request.getfixturevalue('pgbouncer')}/{database}", postgres)
    return Place(postgres.url(database), postgres)


def test_each_result_is_there_although_the_server_was_killed(vhost: Broker, make_app: MakeApp, place: Place) -> None:
    app = make_app(results=place.url)
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
        place.server.kill()
        place.server.start()
        wait_until(store_answers, timeout=30, what="the server answers again")
        assert gather(sent, timeout=60) == [n / 2 for n in range(400)]
        vhost.wait_for_count(QUEUE, 0)


def test_results_of_another_process_are_returned_as_they_are_stored(
    vhost: Broker, make_app: MakeApp, place: Place
) -> None:
    worker, caller = (make_app(results=place.url) for _ in range(2))
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
        assert caller.result(sents[0].id, timeout=20) == 0
