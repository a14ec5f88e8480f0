"""Changes in Redis, as a subscription reports them: to those that watch them, at once, and after each new connection."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from amqpworker.errors import ResultStoreError
from amqpworker.results.redis_store import RedisStore
from amqpworker.results.redis_subscription import RedisSubscription
from tests.stores.redis_server import RedisServer
from tests.support import in_child, wait_until
from tests.unit.results.rows import get, put, row

# Python 3.12 warns of what some of these tests do
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture
def store(redis_server: RedisServer, request: pytest.FixtureRequest) -> Iterator[RedisStore]:
    with closing(RedisStore(redis_server.url, request.node.name)) as store:
        yield store


@pytest.fixture
def subscription(store: RedisStore) -> Iterator[RedisSubscription]:
    """Return one that is connected."""
    with closing(store.subscribe()) as subscription:
        assert subscription.wait(0) is None
        yield subscription


def next_hint(subscription: RedisSubscription) -> set[str] | None:
    """Return what is reported next."""
    until = time.monotonic() + 10
    while not (hint := subscription.wait(10)) and hint is not None:
        assert time.monotonic() < until
    return None if hint is None else set(hint)


def watch(subscription: RedisSubscription, *ids: str) -> None:
    """Watch rows, until that has taken effect."""
    subscription.watch(ids)
    seen: set[str] = set()
    while seen != set(ids):
        seen |= next_hint(subscription) or set()


def test_only_rows_that_are_watched_are_reported(store: RedisStore, subscription: RedisSubscription) -> None:
    watch(subscription, "a", "x\0y", "\ud800")
    put(store, "b")
    assert subscription.wait(0.1) == ()
    for task_id in ("a", "x\0y", "\ud800"):
        put(store, task_id)
        assert next_hint(subscription) == {task_id}
    subscription.unwatch(["a", "never"])
    put(store, "a")
    assert subscription.wait(0.1) == ()


def test_a_row_that_was_put_before_its_watch_took_effect_is_reported(
    store: RedisStore, subscription: RedisSubscription
) -> None:
    put(store, "a")
    subscription.watch(["a"])
    assert next_hint(subscription) == {"a"}


def test_a_row_that_is_not_replaced_is_not_reported(store: RedisStore, subscription: RedisSubscription) -> None:
    watch(subscription, "a")
    put(store, "a")
    assert next_hint(subscription) == {"a"}
    assert store.put([row("a")._replace(state="running")]) == {}
    assert subscription.wait(0.1) == ()


def test_thousands_of_rows_are_watched_by_one_subscription(store: RedisStore, subscription: RedisSubscription) -> None:
    ids = [str(number) for number in range(5000)]
    watch(subscription, *ids)
    assert store.put([row(one) for one in ids]) == {}
    seen: set[str] = set()
    while len(seen) < len(ids):
        seen |= next_hint(subscription) or set()
    subscription.unwatch(ids)
    store.put([row(one) for one in ids])
    while subscription.wait(0.1):
        pytest.fail("none is watched any more")


def test_a_lost_connection_is_opened_again_and_any_row_may_have_changed(
    redis_server: RedisServer, store: RedisStore, subscription: RedisSubscription
) -> None:
    watch(subscription, "a")
    for _ in range(3):
        redis_server.command("CLIENT", "KILL", "TYPE", "pubsub")
        assert next_hint(subscription) is None
        put(store, "a")
        assert next_hint(subscription) == {"a"}


def test_a_server_that_is_gone_is_an_error_until_it_is_back(make_redis: Callable[..., RedisServer]) -> None:
    server = make_redis()
    with closing(RedisStore(server.url, "shop")) as store, closing(store.subscribe()) as subscription:
        subscription.watch(["a"])
        assert subscription.wait(0) is None
        server.kill()
        for _ in range(3):
            with pytest.raises(ResultStoreError, match=r"cannot be read from redis://.*: the connection was refused"):
                subscription.wait(5)
            subscription.watch(["b"])
            subscription.unwatch(["c"])
        server.start()
        assert subscription.wait(0) is None
        put(store, "b")
        assert next_hint(subscription) == {"b"}


def test_a_silent_server_is_waited_for_no_longer_than_asked(make_redis: Callable[..., RedisServer]) -> None:
    server = make_redis()
    with (
        closing(RedisStore(f"{server.url}?socket_timeout=0.5", "shop")) as store,
        closing(store.subscribe()) as subscription,
    ):
        watch_first = subscription.wait(0)
        assert watch_first is None
        server.stop()
        try:
            began = time.monotonic()
            subscription.watch(["a"])
            assert not subscription.wait(0.1)
            assert time.monotonic() - began < 0.4
            with closing(store.subscribe()) as other, pytest.raises(ResultStoreError, match="did not answer in time"):
                other.wait(0)
            assert time.monotonic() - began < 3
        finally:
            server.go_on()
        assert next_hint(subscription) == {"a"}


def test_each_wake_ends_a_wait(subscription: RedisSubscription) -> None:
    waiting = threading.Event()
    ended = []

    def wait() -> None:
        for _ in range(200):
            waiting.set()
            ended.append(subscription.wait(30))

    thread = threading.Thread(target=wait)
    thread.start()
    until = time.monotonic() + 30
    while thread.is_alive() and time.monotonic() < until:
        if waiting.wait(0.01):
            waiting.clear()
            subscription.wake()
    thread.join(1)
    assert [list(hint or "x") for hint in ended] == [["x"]] * 200


def test_a_child_has_a_subscription_of_its_own(store: RedisStore, subscription: RedisSubscription) -> None:
    watch(subscription, "a", "b")

    def in_it() -> bool:
        subscription.wake()
        if subscription.wait(0) is not None:
            return False
        put(store, "b")
        if next_hint(subscription) != {"b"}:
            return False
        subscription.close()
        store.close()
        return get(store, "b") == b"1"

    assert in_child(in_it)
    assert next_hint(subscription) == {"b"}
    subscription.wait(0)  # the child's wake may have reached its parent
    put(store, "a")
    assert next_hint(subscription) == {"a"}


def test_a_wait_that_was_interrupted_misses_nothing(store: RedisStore, subscription: RedisSubscription) -> None:
    watch(subscription, "a")
    connection = subscription._connection
    assert connection is not None
    connection.disconnect()  # as redis-py does when an exception from another thread interrupts it
    put(store, "a")
    assert next_hint(subscription) is None
    put(store, "a")
    wait_until(lambda: "a" in (subscription.wait(1) or ()), 10, what="changes are reported again")
