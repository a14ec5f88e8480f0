"""Users whom a Redis refuses: wrong passwords, databases that do not exist, and what an ACL does not allow."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial

import pytest

from amqpworker.errors import ConfigError, ResultStoreError
from amqpworker.results.redis_store import RedisStore
from tests.stores.redis_server import RedisServer, error_of
from tests.unit.results.rows import get, put, row

MakeRedis = Callable[..., RedisServer]
SECRET = "pa/ss#w@rd"
IN_URL = "pa%2Fss%23w%40rd"


def watch_one(store: RedisStore) -> None:
    with closing(store.subscribe()) as subscription:
        subscription.watch(["a"])
        subscription.wait(0)


def refused(work: Callable[[], object], reason: str) -> ConfigError:
    with pytest.raises(ConfigError, match=reason) as caught:
        work()
    return caught.value


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis://127.0.0.1:{port}/0", "user or password is wrong, or missing in the URL"),
        (f"redis://:wrong{IN_URL}@127.0.0.1:{{port}}/0", "user or password is wrong"),
        (f"redis://nobody:{IN_URL}@127.0.0.1:{{port}}/0", "user or password is wrong"),
        (f"redis://:{IN_URL}@127.0.0.1:{{port}}/99", "it has no database of this number"),
    ],
)
def test_a_login_that_is_refused_is_a_config_error_without_the_password(
    make_redis: MakeRedis, url: str, reason: str
) -> None:
    server = make_redis("requirepass", SECRET)
    with closing(RedisStore(url.format(port=server.port), "shop")) as store:
        texts = [error_of(store, row("a"))]
        asks: list[Callable[[], object]] = [
            store.check_writable,
            lambda: store.get(["a"]),
            partial(watch_one, store),
        ]
        for error in [refused(ask, reason) for ask in asks]:
            texts += [str(error), repr(error.__cause__)]
        with pytest.raises(ResultStoreError, match=reason):
            store.delete(["a"])
        assert reason in texts[0]
        assert SECRET not in f"{texts}{store.address!r}"
        assert IN_URL not in f"{texts}{store.address!r}"


def test_a_password_with_any_characters_is_understood(make_redis: MakeRedis) -> None:
    server = make_redis("requirepass", SECRET)
    with closing(RedisStore(f"redis://:{IN_URL}@127.0.0.1:{server.port}/1", "shop")) as store:
        put(store, "a")
        assert get(store, "a") == b"1"
        assert store.address.shown == f"redis://127.0.0.1:{server.port}/1"


def test_a_password_that_the_server_does_not_ask_for_is_a_config_error(redis_server: RedisServer) -> None:
    url = redis_server.url.replace("//", f"//:{IN_URL}@")
    with closing(RedisStore(url, "shop")) as store, pytest.raises(ConfigError, match="asks for no password"):
        store.check_writable()


ALL = "+@connection +eval +evalsha +getrange +set +publish +mget +unlink +subscribe +unsubscribe"


@pytest.mark.parametrize(
    ("permissions", "reason"),
    [
        ("~amqpworker:* &amqpworker:*", None),
        ("~amqpworker:* &amqpworker:* -eval", "'eval'"),
        ("~amqpworker:* &amqpworker:* -set", "run this command|'set'"),
        ("~amqpworker:* &amqpworker:* -mget", "'mget'"),
        ("~amqpworker:* &amqpworker:* -unlink", "'unlink'"),
        ("~amqpworker:* &other", "channel"),
        ("~other:* &amqpworker:*", "key"),
    ],
)
def test_what_an_acl_does_not_allow_is_named_at_the_start(
    make_redis: MakeRedis, permissions: str, reason: str | None
) -> None:
    server = make_redis()
    server.command("ACL", "SETUSER", "worker", "on", ">pw", *f"{ALL} {permissions}".split())
    with closing(RedisStore(f"redis://worker:pw@127.0.0.1:{server.port}/0", "shop")) as store:
        if reason is None:
            assert store.check_writable() is None, "INFO is not needed"
            put(store, "a")
            assert get(store, "a") == b"1"
            store.delete(["a"])
            with closing(store.subscribe()) as subscription:
                subscription.watch(["a"])
                assert subscription.wait(0) is None
            return
        with pytest.raises(ConfigError, match=rf"its user may not do what is needed \(.*({reason})"):
            store.check_writable()


def test_a_user_without_permission_to_subscribe_is_named(make_redis: MakeRedis) -> None:
    server = make_redis()
    server.command("ACL", "SETUSER", "web", "on", ">pw", *f"{ALL} ~amqpworker:* &amqpworker:* -subscribe".split())
    with closing(RedisStore(f"redis://web:pw@127.0.0.1:{server.port}/0", "shop")) as store:
        subscription = store.subscribe()
        subscription.watch(["a"])
        with pytest.raises(ConfigError, match=r"may not do what is needed .*'subscribe'"):
            subscription.wait(1)
