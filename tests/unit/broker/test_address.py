"""Reading the broker's URL: what it may contain, and that no part of a password is ever shown."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpworker.broker.address import Address, addresses
from amqpworker.broker.pika_parameters import parameters
from amqpworker.broker.tls import tls_context
from amqpworker.errors import ConfigError
from amqpworker.settings import Settings


def one(url: str) -> Address:
    (found,) = addresses(url)
    return found


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("amqp://", Address("localhost", 5672, "/", "guest", "guest", False, False)),
        ("amqp://host", Address("host", 5672, "/", "guest", "guest", False, False)),
        ("amqp://host/", Address("host", 5672, "/", "guest", "guest", False, False)),
        ("amqps://host", Address("host", 5671, "/", "guest", "guest", True, False)),
        ("amqp://host:1234/shop", Address("host", 1234, "shop", "guest", "guest", False, False)),
        ("amqp://me:pass@host/%2F", Address("host", 5672, "/", "me", "pass", False)),
        ("amqp://me@host/a%2Fb", Address("host", 5672, "a/b", "me", "guest", False)),
        ("amqp://m%40e:p%2F%3A%40@host", Address("host", 5672, "/", "m@e", "p/:@", False)),
        ("amqp://[::1]:5673/", Address("::1", 5673, "/", "guest", "guest", False, False)),
        ("AMQP://host", Address("host", 5672, "/", "guest", "guest", False, False)),
        ("  amqp://host  ", Address("host", 5672, "/", "guest", "guest", False, False)),
    ],
)
def test_a_url_is_read_as_the_uri_specification_defines(url: str, wanted: Address) -> None:
    assert one(url) == wanted


def test_several_urls_are_tried_in_their_order() -> None:
    found = addresses("amqp://a, amqps://b:1 ,,amqp://c/v,")
    assert [(each.host, each.port, each.virtual_host) for each in found] == [
        ("a", 5672, "/"),
        ("b", 1, "/"),
        ("c", 5672, "v"),
    ]


@given(user=st.text(min_size=1), password=st.text(), vhost=st.text(min_size=1))
def test_whatever_is_encoded_arrives(user: str, password: str, vhost: str) -> None:
    try:
        parts = [quote(text, safe="") for text in (user, password, vhost)]
    except UnicodeEncodeError:
        return
    found = one(f"amqp://{parts[0]}:{parts[1]}@host/{parts[2]}")
    assert (found.user, found.password, found.virtual_host) == (user, password, vhost)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "  ,, ",
        "host",
        "host:5672",
        "http://guest:sesame@host",
        "amqp://guest:sesame@host:port/",
        "amqp://guest:sesame@host:99999/",
        "amqp://guest:se/same@host/",
        "amqp://guest:se#same@host/",
        "amqp://guest:se?same@host/",
        "amqp://guest:sesame@[::1/",
        "amqp://guest:sesame@host/?heartbeat=5",
        "amqp://guest:sesame@host/#x",
        "amqp://guest:sesame@host/a/b",
        "amqp://guest:ses,ame@host/",
        "guest:sesame@host",
    ],
)
def test_what_cannot_be_read_is_reported_without_any_part_of_the_password(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        addresses(url)
    text = str(caught.value)
    assert text.startswith("The URL of the broker")
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    for part in ("sesame", "same", "ses,", "ame@", "'se'"):
        assert part not in text


def test_no_password_is_shown() -> None:
    address = one("amqp://me:sesame@host")
    assert "sesame" not in repr(address) + str(address)
    assert "sesame" not in repr(parameters(address, Settings(), "test"))


def test_settings_reach_the_connection() -> None:
    settings = Settings(heartbeat=7, connect_timeout=3, send_timeout=400)
    found = parameters(one("amqp://me:sesame@host:1/v"), settings, "publisher")
    assert (found.host, found.port, found.virtual_host) == ("host", 1, "v")
    assert (found.heartbeat, found.stack_timeout, found.socket_timeout) == (7, 3, 3)
    assert found.blocked_connection_timeout == 800
    assert found.connection_attempts == 1
    assert found.client_properties["connection_name"] == "publisher"
    assert found.ssl_options is None


def test_tls_checks_certificate_and_name() -> None:
    import ssl

    context = tls_context(Settings())
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert parameters(one("amqps://host"), Settings(), "test").ssl_options.server_hostname == "host"


@pytest.mark.parametrize("setting", ["tls_ca", "tls_cert"])
@pytest.mark.parametrize("content", [None, "nonsense"])
def test_a_tls_file_that_cannot_be_used_is_named(tmp_path: Path, setting: str, content: str | None) -> None:
    path = tmp_path / "file.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=rf"{setting}.*{path}"):
        tls_context(Settings(**{setting: path}))
