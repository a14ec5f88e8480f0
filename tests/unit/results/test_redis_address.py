"""What the URL of a Redis or Valkey server names, and what is refused before anything is opened."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from amqpworker.errors import ConfigError
from amqpworker.results.redis_address import address_of

SECRET = "pa/ss#w@rd"
IN_URL = "pa%2Fss%23w%40rd"


@pytest.mark.parametrize(
    ("url", "shown", "expected"),
    [
        ("redis://", "redis://localhost:6379/0", {"host": "localhost", "port": 6379}),
        ("redis://cache", "redis://cache:6379/0", {"host": "cache"}),
        ("valkey://cache:7000/2", "valkey://cache:7000/2", {"port": 7000, "db": 2}),
        ("redis://cache?db=3", "redis://cache:6379/3", {"db": 3}),
        ("redis://[::1]:1/", "redis://[::1]:1/0", {"host": "::1", "port": 1}),
        (f"redis://:{IN_URL}@h/0", "redis://h:6379/0", {"username": None, "password": SECRET}),
        (f"redis://us%2Fer:{IN_URL}@h/0", "redis://h:6379/0", {"username": "us/er", "password": SECRET}),
        ("rediss://h?ssl_cert_reqs=none", "rediss://h:6379/0", {"ssl_cert_reqs": "none"}),
        ("valkeys://h?ssl_check_hostname=no", "valkeys://h:6379/0", {"ssl_check_hostname": False}),
        ("redis://h?socket_timeout=0.5&socket_connect_timeout=2", "redis://h:6379/0", {"socket_timeout": 0.5}),
        ("unix:///run/redis/a%20b.sock?db=1", "unix:///run/redis/a b.sock", {"path": "/run/redis/a b.sock", "db": 1}),
        (f"unix://u:{IN_URL}@/run/redis.sock", "unix:///run/redis.sock", {"username": "u", "password": SECRET}),
    ],
)
def test_a_url_names_a_server(url: str, shown: str, expected: dict[str, Any]) -> None:
    address = address_of(url)
    assert address.shown == str(address) == shown
    assert {name: address.parameters[name] for name in expected} == expected
    assert SECRET not in repr(address)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (f"redis://:{SECRET}@h/0", "must be written as %2F"),
        (f"redis://u:{IN_URL}@h:port/0", "the port must be a number"),
        (f"redis://u:{IN_URL}@h:70000/0", "the port must be a number"),
        (f"redis://u:{IN_URL}@h/cache", "a database is a number, as in redis://localhost:6379/0"),
        (f"redis://u:{IN_URL}@h/-1", "a database is a number"),
        (f"redis://u:{IN_URL}@h/1/2", "a database is a number"),
        (f"redis://u:{IN_URL}@h/1?db=2", "it names a database twice"),
        (f"redis://u:{IN_URL}@h/#1", "write '#' in a password as %23"),
        (
            f"redis://u:{IN_URL}@h?max_connections=5",
            "unknown option 'max_connections'. Known options: allow_eviction, db",
        ),
        (f"redis://u:{IN_URL}@h?ssl_ca_certs=x", r"unknown option 'ssl_ca_certs' \(for rediss:// and valkeys://\)"),
        (f"rediss://u:{IN_URL}@h?ssl_cert_reqs=maybe", "the value of ssl_cert_reqs is not valid"),
        (f"redis://u:{IN_URL}@h?socket_timeout=0", "the value of socket_timeout is not valid"),
        (f"redis://u:{IN_URL}@h?socket_timeout=nan", "the value of socket_timeout is not valid"),
        (f"redis://u:{IN_URL}@h?allow_eviction=", "the value of allow_eviction is not valid"),
        (f"unix://u:{IN_URL}@run/redis.sock", "named with three slashes"),
        ("unix:///", "named with three slashes"),
        ("unix:///a%00b", "named with three slashes"),
    ],
)
def test_a_url_that_names_no_server_is_refused_without_its_password(url: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        address_of(url)
    assert SECRET not in str(caught.value)
    assert IN_URL not in str(caught.value)


WITHOUT_REDIS = """
import sys
sys.modules["redis"] = None  # as if it was not installed
from amqpworker import App
from amqpworker.errors import ConfigError
App(results="sqlite:///results.db")
try:
    App(results="redis://u:secret@h/0")
except ConfigError as error:
    print(error)
"""


def test_a_missing_package_is_named_with_its_extra() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_REDIS], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("results='redis://u:***@h/0' needs redis: pip install 'amqpworker[redis]' (")


def test_redis_is_imported_only_for_a_store_that_needs_it() -> None:
    program = "import sys; from amqpworker import App; App(results='sqlite:///r.db'); print('redis' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
