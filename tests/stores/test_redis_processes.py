"""Redis, used by many threads, processes and children at once, and interrupted in the middle."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from types import FrameType

import pytest

from amqpworker.results.redis_connections import MOST_CONNECTIONS
from amqpworker.results.redis_store import RedisStore
from tests.stores.redis_server import RedisServer
from tests.support import in_child
from tests.unit.results.rows import get, put, row

# Python 3.12 warns of what some of these tests do
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture
def server(make_redis: Callable[..., RedisServer]) -> RedisServer:
    return make_redis()


@pytest.fixture
def store(server: RedisServer) -> Iterator[RedisStore]:
    with closing(RedisStore(server.url, "shop")) as store:
        yield store


def test_many_threads_share_a_few_connections(server: RedisServer, store: RedisStore) -> None:
    def work(number: int) -> None:
        for turn in range(50):
            put(store, f"{number}-{turn}", b"%d" % turn)
            assert get(store, f"{number}-{turn}") == b"%d" % turn

    with ThreadPoolExecutor(32) as threads:
        list(threads.map(work, range(32)))
    assert server.info("connected_clients") <= MOST_CONNECTIONS + 1
    assert server.info("total_connections_received") < 30
    store.close()
    assert server.info("connected_clients") == 1


def test_one_thread_uses_one_connection(server: RedisServer, store: RedisStore) -> None:
    for number in range(50):
        put(store, str(number))
        assert get(store, str(number)) == b"1"
    assert server.info("connected_clients") == 2


def test_children_use_connections_of_their_own(store: RedisStore) -> None:
    ended = threading.Event()

    def work() -> None:
        number = 0
        while not ended.is_set():
            number += 1
            put(store, "parent", b"%d" % number)
            assert get(store, "parent") == b"%d" % number

    def in_it() -> bool:
        mine = str(os.getpid())
        for number in range(20):
            put(store, mine, b"%d" % number)
            if get(store, mine) != b"%d" % number:
                return False
        store.close()
        return get(store, mine) == b"19"

    with ThreadPoolExecutor(1) as thread:
        working = thread.submit(work)
        try:
            assert all(in_child(in_it) for _ in range(10))
        finally:
            ended.set()
        working.result(20)


WRITER = """
import sys
from amqpworker.results.redis_store import RedisStore
from tests.unit.results.rows import row
store = RedisStore(sys.argv[1], "shop")
ids = [str(number) for number in range(200)]
if sys.argv[2] == "1":
    ids.reverse()
for turn in range(30):
    sent = f"2026-11-{turn // 3 + 1:02}"
    assert store.put([row(one, f"{sent} {turn}".encode(), first_sent=sent) for one in ids]) == {}
"""


def test_processes_that_put_the_same_ids_agree_which_message_counts(server: RedisServer, store: RedisStore) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, server.url, str(number % 2)]) for number in range(4)]
    assert [writer.wait(60) for writer in writers] == [0] * 4
    found = store.get([str(number) for number in range(200)])
    assert len(found) == 200
    assert {one.reply[:10] for one in found.values()} == {b"2026-11-10"}


class Interrupted(Exception):
    pass


@pytest.fixture
def unclosed_sockets_are_ignored() -> Iterator[None]:
    """redis-py leaves a socket to the garbage collector if it was interrupted while it connected."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()


def test_an_interrupted_use_mixes_up_no_answers(store: RedisStore, unclosed_sockets_are_ignored: None) -> None:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    rows = [row(f"batch-{number}", b"x" * 1000) for number in range(1000)]
    interrupted = 0
    try:
        for turn in range(60):
            put(store, "a", b"%d" % turn)
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0005 + turn * 0.0003)
                store.put(rows)
                store.get([one.id for one in rows])
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Interrupted:
                interrupted += 1
            assert get(store, "a") == b"%d" % turn
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted > 20


def test_a_signal_handler_may_use_a_store_that_is_in_use(store: RedisStore) -> None:
    found = []

    def use(number: int, frame: FrameType | None) -> None:
        found.append(get(store, "a"))
        signal.setitimer(signal.ITIMER_REAL, 0.002)  # once it has ended, so that it never interrupts itself

    before = signal.signal(signal.SIGALRM, use)
    try:
        put(store, "a")
        rows = [row(f"batch-{number}", b"x" * 1000) for number in range(1000)]
        signal.setitimer(signal.ITIMER_REAL, 0.002)
        for _ in range(10):
            assert store.put(rows) == {}
            assert len(store.get([one.id for one in rows])) == 1000
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert set(found) == {b"1"}
