"""Redis over TLS: rows, changes, and certificates that are not accepted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from amqpworker.errors import ConfigError
from amqpworker.results.redis_store import RedisStore
from tests.certificates import make_authority, make_certificate
from tests.stores.redis_server import RedisServer, free_port
from tests.unit.results.rows import get, put, row


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Path:
    return make_authority(folder, "ours")


@pytest.fixture(scope="module")
def port(folder: Path, authority: Path) -> Iterator[int]:
    """Return the port of a server that asks for a certificate, if there is one."""
    certificate, key = make_certificate(folder, authority, "localhost")
    port = free_port()
    tls = {"tls-port": port, "tls-cert-file": certificate, "tls-key-file": key, "tls-ca-cert-file": authority}
    options = [str(text) for pair in tls.items() for text in pair]
    with RedisServer(folder, *options, "tls-auth-clients", "optional"):
        yield port


@pytest.mark.parametrize("scheme", ["rediss", "valkeys"])
def test_rows_and_changes_go_over_tls(scheme: str, port: int, authority: Path) -> None:
    url = f"{scheme}://localhost:{port}/0?ssl_ca_certs={authority}"
    with closing(RedisStore(url, scheme)) as store, closing(store.subscribe()) as subscription:
        assert store.check_writable() is None
        ids = [str(number) for number in range(2000)]
        subscription.watch(ids)
        assert subscription.wait(0) is None
        rows = {one: row(one, one.encode() * 300) for one in ids}
        assert store.put(list(rows.values())) == {}
        assert store.get(rows) == rows
        seen: set[str] = set()
        while len(seen) < len(ids):
            seen |= set(subscription.wait(5) or ())
        subscription.wake()
        assert not subscription.wait(30)


def test_a_user_may_have_a_certificate(port: int, authority: Path, folder: Path) -> None:
    certificate, key = make_certificate(folder, authority, "worker")
    options = f"ssl_ca_certs={authority}&ssl_certfile={certificate}&ssl_keyfile={key}"
    with closing(RedisStore(f"rediss://localhost:{port}/0?{options}", "shop")) as store:
        put(store, "a")
        assert get(store, "a") == b"1"


def test_a_certificate_is_checked_unless_the_url_asks_for_none(port: int) -> None:
    with closing(RedisStore(f"rediss://localhost:{port}/0", "shop")) as store:
        with pytest.raises(
            ConfigError, match=r"its certificate is not accepted: (self-signed|.*unable to get local issuer)"
        ):
            store.check_writable()
        with pytest.raises(ConfigError, match="its certificate is not accepted"):
            store.subscribe().wait(0)
    with closing(RedisStore(f"rediss://localhost:{port}/0?ssl_cert_reqs=none", "shop")) as store:
        assert store.check_writable() is None


def test_a_certificate_of_another_host_is_not_accepted(port: int, authority: Path) -> None:
    url = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={authority}"
    with (
        closing(RedisStore(url, "shop")) as store,
        pytest.raises(ConfigError, match="not accepted: IP address mismatch"),
    ):
        store.check_writable()
    with closing(RedisStore(f"{url}&ssl_check_hostname=no", "shop")) as store:
        assert store.check_writable() is None


def test_a_port_without_tls_and_a_missing_file_are_named(redis_server: RedisServer) -> None:
    url = redis_server.url.replace("redis", "rediss", 1)
    with closing(RedisStore(f"{url}?socket_connect_timeout=0.5", "shop")) as store:
        assert "it did not answer in time (if its port does not use TLS, write redis://)" in str(store.check_writable())
    url = f"rediss://localhost:{redis_server.port}/0?ssl_ca_certs=/no/such.pem"
    with closing(RedisStore(url, "shop")) as store, pytest.raises(ConfigError, match="does not exist"):
        store.check_writable()


def test_a_url_without_tls_for_a_port_that_needs_it_does_not_hang(port: int) -> None:
    with closing(RedisStore(f"redis://localhost:{port}/0?socket_timeout=1", "shop")) as store:
        assert "cannot be stored in redis://localhost" in str(store.check_writable())
