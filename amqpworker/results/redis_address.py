"""
Where a Redis or Valkey server is, as its URL names it.

Decides which parts of a URL count: one that would be ignored is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from amqpworker.errors import ConfigError
from amqpworker.log.redaction import redact_url

PORT = 6379
EXAMPLE = "redis://localhost:6379/0"
SOCKET_HINT = "a socket is named with three slashes, as in unix:///run/redis/redis.sock?db=0"

ANSWER_TIMEOUT = 10.0
"""Seconds that a server may take to answer: with `appendfsync always` an answer waits for the disk."""

CONNECT_TIMEOUT = 5.0


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """One server and one of its databases; its `repr` has no password."""

    shown: str
    """Its URL, without user, password and options."""

    parameters: Mapping[str, Any] = field(repr=False)
    """The parameters of redis-py's `Connection`."""

    tls: bool
    path: str | None
    """Its Unix domain socket, if it is reached by one."""

    allows_eviction: bool
    """Whether results may vanish if its memory is full."""

    def __str__(self) -> str:
        return self.shown


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise ValueError(text)
    return value


def _flag(text: str) -> bool:
    return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[text.lower()]


def _database(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(text)
    return int(text)


def _verification(text: str) -> str:
    return {"none": "none", "optional": "optional", "required": "required"}[text.lower()]


_OPTIONS: dict[str, Callable[[str], Any]] = {
    "allow_eviction": _flag,
    "db": _database,
    "socket_connect_timeout": _seconds,
    "socket_timeout": _seconds,
}
# as redis-py names them
_TLS_OPTIONS: dict[str, Callable[[str], Any]] = {
    "ssl_ca_certs": str,
    "ssl_cert_reqs": _verification,
    "ssl_certfile": str,
    "ssl_check_hostname": _flag,
    "ssl_keyfile": str,
}


def address_of(url: str) -> RedisAddress:
    """Return the server that a URL names; raises ConfigError, without the password, if it names none."""
    try:
        split = urlsplit(url)
        host, port = split.hostname, split.port
    except ValueError:
        raise _wrong(
            url,
            "the port must be a number up to 65535, and /, ?, # and @ in a password must be written as %2F, %3F, %23 and %40",
        ) from None
    if split.fragment:
        raise _wrong(url, "what follows '#' would be ignored: write '#' in a password as %23")
    tls = split.scheme in {"rediss", "valkeys"}
    options = _options(url, split, tls)
    allows_eviction = options.pop("allow_eviction", False)
    parameters: dict[str, Any] = {
        "socket_timeout": ANSWER_TIMEOUT,
        "socket_connect_timeout": CONNECT_TIMEOUT,
        "username": unquote(split.username) if split.username else None,
        "password": unquote(split.password) if split.password else None,
        **({"ssl_check_hostname": True} if tls else {}),
        **options,
    }
    if split.scheme == "unix":
        if host or port:
            raise _wrong(url, SOCKET_HINT)
        path = _socket_path(url, split)
        return RedisAddress(f"unix://{path}", {**parameters, "path": path}, False, path, allows_eviction)
    host, port, database = host or "localhost", port or PORT, _database_of(url, split, options)
    shown = f"[{host}]" if ":" in host else host
    place = f"{split.scheme}://{shown}:{port}/{database}"
    return RedisAddress(place, {**parameters, "host": host, "port": port, "db": database}, tls, None, allows_eviction)


def _options(url: str, split: SplitResult, tls: bool) -> dict[str, Any]:
    known = {**_OPTIONS, **_TLS_OPTIONS} if tls else _OPTIONS
    found = {}
    for name, value in parse_qsl(split.query, keep_blank_values=True):
        if name not in known:
            hint = " (for rediss:// and valkeys://)" if name in _TLS_OPTIONS else ""
            raise _wrong(url, f"unknown option {name!r}{hint}. Known options: {', '.join(sorted(known))}")
        try:
            found[name] = known[name](value)
        except (ValueError, KeyError):
            raise _wrong(url, f"the value of {name} is not valid") from None
    return found


def _socket_path(url: str, split: SplitResult) -> str:
    path = unquote(split.path)
    if len(path) < 2 or "\0" in path:
        raise _wrong(url, SOCKET_HINT)
    return path


def _database_of(url: str, split: SplitResult, options: Mapping[str, Any]) -> int:
    """Return the number of the database, which is the path of a URL or its option `db`."""
    name = unquote(split.path[1:])
    if not name:
        return int(options.get("db", 0))
    if "db" in options:
        raise _wrong(url, "it names a database twice, by its path and by ?db=: remove one of them")
    try:
        return _database(name)
    except ValueError:
        raise _wrong(url, f"a database is a number, as in {EXAMPLE}") from None


def _wrong(url: str, mistake: str) -> ConfigError:
    return ConfigError(f"results={redact_url(url)!r}: {mistake}.")
