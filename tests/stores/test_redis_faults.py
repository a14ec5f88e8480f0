"""What can go wrong at a Redis: full, evicting, read-only, silent, gone, restarted; and rows that it cannot keep."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from amqpworker.errors import ConfigError, ResultStoreError
from amqpworker.results.redis_rows import Keys
from amqpworker.results.redis_store import RedisStore
from amqpworker.results.store import ResultNotStorable, RowsNotReadable
from tests.proxy import Direction, Proxy
from tests.stores.redis_server import RedisServer, error_of, free_port
from tests.support import wait_until
from tests.unit.results.rows import get, put, row

MakeRedis = Callable[..., RedisServer]


@pytest.fixture
def store(redis_server: RedisServer, request: pytest.FixtureRequest) -> Iterator[RedisStore]:
    with closing(RedisStore(redis_server.url, request.node.name)) as store:
        yield store


def stored(url: str) -> RedisStore:
    """Return a store that does not wait long for an answer."""
    return RedisStore(f"{url}?socket_timeout=0.3&socket_connect_timeout=0.3", "shop")


def test_a_full_server_refuses_rows_until_it_has_space(make_redis: MakeRedis) -> None:
    server = make_redis("maxmemory", "3mb", "maxmemory-policy", "noeviction")
    with closing(stored(server.url)) as store:
        assert store.check_writable() is None
        rows = [row(str(number), b"x" * 100_000) for number in range(40)]
        errors = store.put(rows)
        assert 0 < len(errors) < 40, "each row by itself"
        text = str(next(iter(errors.values())))
        assert text.endswith("its memory is full: raise maxmemory, or keep results for a shorter time."), text
        found = store.get([one.id for one in rows])
        assert found.keys() == {one.id for one in rows} - errors.keys()
        server.command("CONFIG", "SET", "maxmemory", "1mb")
        assert "its memory is full" in error_of(store, row("a"), row("b"))
        assert "its memory is full" in str(store.check_writable())
        store.delete(found)
        server.command("CONFIG", "SET", "maxmemory", "3mb")
        put(store, "later")
        assert get(store, "later") == b"1"


def test_a_server_that_evicts_results_is_refused_unless_the_url_accepts_it(make_redis: MakeRedis) -> None:
    server = make_redis("maxmemory", "100mb", "maxmemory-policy", "allkeys-lru")
    with closing(RedisStore(server.url, "shop")) as store:
        with pytest.raises(ConfigError, match=r"deletes results without notice .*allkeys-lru.*\?allow_eviction=true"):
            store.check_writable()
        # results expire: such a policy takes just those
        server.command("CONFIG", "SET", "maxmemory-policy", "volatile-ttl")
        with pytest.raises(ConfigError, match="volatile-ttl"):
            store.check_writable()
        with closing(RedisStore(f"{server.url}?allow_eviction=true", "shop")) as willing:
            assert willing.check_writable() is None
        server.command("CONFIG", "SET", "maxmemory", 0)
        assert store.check_writable() is None, "it has no limit"


def test_a_row_that_has_expired_is_deleted_and_is_not_an_error(store: RedisStore) -> None:
    """Redis refuses an expiry of 0."""
    now = time.time()
    put(store, "a")
    for expires_at in (now, now - 1e9, 0.0, -1.0, now + 0.0004, float("-inf")):
        assert store.put([row("a", b"2", expires_at), row("b")]) == {}
        assert get(store, "b") == b"1"
    wait_until(lambda: get(store, "a") is None, 5, what="it has expired")


def test_a_row_may_never_expire(store: RedisStore) -> None:
    assert store.put([row("a", b"2", 1e300), row("b", b"2", float("inf"))]) == {}
    assert store.get(["a", "b"]) == {"a": row("a", b"2", 1e300), "b": row("b", b"2", float("inf"))}


def test_a_row_expires_by_itself(store: RedisStore) -> None:
    put(store, "a", expires_at=time.time() + 0.3)
    assert get(store, "a") == b"1"
    wait_until(lambda: get(store, "a") is None, 5, what="it has expired")


def test_a_row_that_can_never_be_stored_fails_alone(redis_server: RedisServer) -> None:
    with closing(RedisStore(redis_server.url, "large", largest=10_000)) as store:
        errors = store.put([row("a"), row("b", b"x" * 10_001), row("c")])
        assert {task_id: type(error) for task_id, error in errors.items()} == {"b": ResultNotStorable}
        assert "larger than a value can be there (10000 bytes" in str(errors["b"])
        assert set(store.get(["a", "b", "c"])) == {"a", "c"}


@pytest.mark.parametrize("size", [1_100_000, 30_000_000])
def test_a_row_that_is_too_large_for_the_settings_of_its_server_fails_alone(make_redis: MakeRedis, size: int) -> None:
    server = make_redis("proto-max-bulk-len", "1mb")
    with closing(RedisStore(server.url, "shop")) as store:
        put(store, "before")
        errors = store.put([row("a"), row("b", b"x" * size), row("c")])
        assert {task_id: type(error) for task_id, error in errors.items()} == {"b": ResultNotStorable}
        assert set(store.get(["a", "b", "c"])) == {"a", "c"}


def test_a_replica_stores_nothing_and_can_be_read(make_redis: MakeRedis) -> None:
    primary = make_redis("repl-diskless-sync-delay", "0")
    replica = make_redis("replicaof", f"127.0.0.1 {primary.port}")
    with closing(stored(primary.url)) as writer, closing(stored(replica.url)) as reader:
        put(writer, "a")
        wait_until(lambda: reader.get(["a"]) != {}, 20, what="it is replicated")
        assert "it is a replica, which stores nothing: name the primary in the URL" in error_of(reader, row("b"))
        assert "it is a replica" in str(reader.check_writable())
        with pytest.raises(ResultStoreError, match=r"cannot be deleted from .*it is a replica"):
            reader.delete(["a"])


def test_a_connection_to_a_primary_that_has_become_a_replica_is_not_used_again(make_redis: MakeRedis) -> None:
    """Its address may lead to the new primary by now."""
    server = make_redis()
    with closing(stored(server.url)) as store:
        put(store, "before")
        assert server.info("connected_clients") == 2
        server.command("REPLICAOF", "127.0.0.1", server.port)
        assert "it is a replica" in error_of(store, row("a"), row("b"))
        assert server.info("connected_clients") == 1
        server.command("REPLICAOF", "NO", "ONE")
        put(store, "after")


def test_a_node_of_a_cluster_is_refused(make_redis: MakeRedis) -> None:
    server = make_redis("cluster-enabled", "yes")
    with closing(stored(server.url)) as store, pytest.raises(ConfigError, match="a cluster, which is not supported"):
        store.check_writable()


def test_a_server_without_scripts_is_refused(make_redis: MakeRedis) -> None:
    server = make_redis("rename-command", "EVAL other")
    with (
        closing(stored(server.url)) as store,
        pytest.raises(ConfigError, match="does not have a command that is needed"),
    ):
        store.check_writable()


def test_too_few_replicas_are_named(make_redis: MakeRedis) -> None:
    server = make_redis("min-replicas-to-write", "1")
    with closing(stored(server.url)) as store:
        assert "too few of its replicas are connected" in error_of(store, row("a"), row("b"))


def test_a_server_whose_disk_fails_is_named(make_redis: MakeRedis) -> None:
    server = make_redis()
    server.command("CONFIG", "SET", "save", "3600 1")
    with closing(stored(server.url)) as store:
        put(store, "before")
        (server.folder / "dump.rdb" / "full").mkdir(
            parents=True
        )  # a folder that is not empty cannot be replaced by a file
        server.command("BGSAVE")
        wait_until(lambda: "MISCONF" in str(store.put([row("a")])), 10, what="it refuses to store")
        assert "it cannot write its data to its disk" in error_of(store, row("b"))
        assert "cannot write its data to its disk" in str(store.check_writable())
        assert get(store, "before") == b"1"


def test_a_silent_server_keeps_no_one_waiting_for_long(make_redis: MakeRedis) -> None:
    server = make_redis()
    with closing(stored(server.url)) as store:
        put(store, "before")
        server.stop()
        began = time.monotonic()
        try:
            rows = [row(str(number), b"x" * 100_000) for number in range(100)]
            assert "it did not answer in time" in error_of(store, *rows)
            with pytest.raises(ResultStoreError, match=r"cannot be read from .*it did not answer in time"):
                store.get(["before"])
            assert "it did not answer in time" in str(store.check_writable())
            assert time.monotonic() - began < 5, "each at most once"
        finally:
            server.go_on()
        put(store, "after")
        assert store.get(["before", "after"]).keys() == {"before", "after"}


def test_what_put_has_returned_for_is_there_after_a_kill(make_redis: MakeRedis) -> None:
    server = make_redis("appendonly", "yes", "appendfsync", "always")
    safe = []
    with closing(stored(server.url)) as store:
        for number in range(50):
            rows = [row(f"{number}-{each}", b"x" * 200) for each in range(20)]
            assert store.put(rows) == {}
            safe += [one.id for one in rows]
        server.kill()
        assert "the connection was refused" in error_of(store, row("meanwhile"))
        with pytest.raises(ResultStoreError, match="the connection was refused"):
            store.get(["meanwhile"])
        server.start()
        assert store.get(safe).keys() == set(safe)
        put(store, "after")


def test_a_lost_connection_is_opened_again_at_once(make_redis: MakeRedis) -> None:
    server = make_redis()
    with closing(stored(server.url)) as store:
        for number in range(10):
            assert server.command("CLIENT", "KILL", "TYPE", "normal") is not None
            put(store, str(number))
            server.command("CLIENT", "KILL", "TYPE", "normal")
            assert get(store, str(number)) == b"1"
        server.command("SCRIPT", "FLUSH")
        assert store.put([row(str(number)) for number in range(10)]) == {}
        server.kill()
        server.start()
        put(store, "restarted")


def proxied(server: RedisServer) -> Proxy:
    return Proxy(server.url.replace("//", "//u:p@"))


@pytest.mark.parametrize(("direction", "count"), [("to_broker", 100_000), ("to_client", 700), ("to_client", 1)])
def test_a_batch_is_sent_again_if_the_connection_is_lost_in_the_middle(
    redis_server: RedisServer, direction: Direction, count: int
) -> None:
    with (
        proxied(redis_server) as proxy,
        closing(stored(f"redis://{proxy.url.rpartition('@')[2]}")) as store,
    ):
        put(store, "before")
        proxy.reset_after(count, direction)
        rows = {f"lost-{number}": row(f"lost-{number}", b"x" * 1000) for number in range(500)}
        assert store.put(list(rows.values())) == {}
        assert store.get(rows) == rows
        assert proxy.accepted == 2


def test_a_host_that_does_not_answer_as_redis_does_is_named(make_redis: MakeRedis) -> None:
    with closing(stored(f"redis://127.0.0.1:{free_port()}/0")) as store:
        assert store.check_writable() is not None
        assert "the connection was refused" in error_of(store, row("a"))
    with closing(RedisStore("redis://no-such-host.invalid/0", "shop")) as store:
        assert "its host name cannot be resolved" in error_of(store, row("a"))
    with closing(RedisStore("unix:///no/such/socket", "shop")) as store:
        assert "the socket does not exist" in error_of(store, row("a"))


def test_a_value_of_another_program_or_a_later_version_is_not_replaced(
    store: RedisStore, redis_server: RedisServer, request: pytest.FixtureRequest
) -> None:
    keys = Keys(request.node.name)
    for value in (b"something", b'2 2 \n{"state":"done"}\n1', b"1 2 \n{}\n1"):
        redis_server.command("SET", keys.of("a"), value)
        with pytest.raises(ResultStoreError, match="task a was written by another program, or by a later version"):
            store.get(["a"])
        if value[:1] != b"1":
            assert "was written by another program" in str(store.put([row("a"), row("b")])["a"])
        assert set(store.get(["b"])) <= {"b"}
    redis_server.command("DEL", keys.of("a"))
    redis_server.command("LPUSH", keys.of("a"), "x")
    errors = store.put([row("a"), row("c")])
    assert {one: type(error) for one, error in errors.items()} == {"a": ResultNotStorable}
    assert set(store.get(["a", "c"])) == {"c"}


def test_a_value_of_another_program_keeps_no_other_row_from_being_read_or_stored(
    store: RedisStore, redis_server: RedisServer, request: pytest.FixtureRequest
) -> None:
    redis_server.command("SET", Keys(request.node.name).of("a"), "something")
    errors = store.put([row("a"), row("b")])
    assert {one: type(error) for one, error in errors.items()} == {"a": ResultNotStorable}, "a worker would wait for it"
    with pytest.raises(RowsNotReadable) as caught:
        store.get(["a", "b", "c"])
    assert (set(caught.value.ids), set(caught.value.rows)) == ({"a"}, {"b"})


def test_namespaces_share_no_keys_whatever_their_names(redis_server: RedisServer) -> None:
    stores = {
        name: RedisStore(redis_server.url, name) for name in ("x", "x:result:y", "x:result", "{x}", "%7Bx%7D", "ü")
    }
    ids = ["y", "y:z", "result:y:z", "z"]
    for name, store in stores.items():
        assert store.put([row(one, f"{name} {one}".encode()) for one in ids]) == {}
    for name, store in stores.items():
        assert {one: found.reply for one, found in store.get(ids).items()} == {
            one: f"{name} {one}".encode() for one in ids
        }
        store.close()


def test_texts_are_compared_byte_by_byte(store: RedisStore) -> None:
    """A server compares texts as its locale does, in which punctuation may not count."""
    order = [
        "",
        "2026-11-23T10:00:00.000Z",
        "2026-11-23T10:00:00.001Z",
        "2026-11-24",
        "2027",
        "A",
        "a",
        "a-b",
        "aa",
        "é",
    ]
    for number, first_sent in enumerate(order):
        put_one = row("x", b"%d" % number, first_sent=first_sent)
        assert store.put([put_one]) == {}
        assert store.get(["x"]) == {"x": put_one}
    for number, first_sent in enumerate(order[:-1]):
        assert store.put([row("x", b"old %d" % number, first_sent=first_sent)]) == {}
    assert get(store, "x") == b"9"
