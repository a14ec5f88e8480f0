"""The addresses of the broker: a URL, or a comma-separated list of URLs, as checked values."""

from __future__ import annotations

import encodings.idna  # noqa: F401 - else loaded by the I/O thread: a child forked meanwhile would wait for that for ever
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from amqpworker.errors import ConfigError
from amqpworker.settings import DEFAULT_URL

PORTS = {"amqp": 5672, "amqps": 5671}


@dataclass(frozen=True, slots=True)
class Address:
    """One node of the broker; its `repr` has no password."""

    host: str
    port: int
    virtual_host: str
    user: str
    password: str = field(repr=False)
    tls: bool
    names_user: bool = True
    """Whether the URL names the user; if not, it is `guest`, or the user of our certificate."""
    is_default: bool = False
    """Whether neither the program nor its environment names a broker."""

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def places(known: Iterable[Address]) -> str:
    """Return the addresses as text for people."""
    return " or ".join(map(str, known))


def addresses(url: str) -> tuple[Address, ...]:
    """Read a URL, or several separated by commas, which are tried in turn; raises a ConfigError that contains no password."""
    found = tuple(_address(part.strip()) for part in url.split(",") if part.strip())
    if not found:
        raise ConfigError("The URL of the broker is empty: set one such as amqp://user:password@host:5672/vhost.")
    return found


def _address(url: str) -> Address:
    """Read one URL (https://www.rabbitmq.com/docs/uri-spec); without a path the virtual host is `/`."""
    try:
        split = urlsplit(url)
        host, port = split.hostname, split.port
    except ValueError:
        # Not Python's text: if a character of a password is not encoded, the "port" in it is a part of the password.
        raise ConfigError(
            "The URL of the broker cannot be read: the port after the host must be from 0 to 65535, IPv6 addresses must be in "
            "brackets, and /, ?, # and @ in a password must be written as %2F, %3F, %23 and %40."
        ) from None
    if split.scheme not in PORTS:
        mistake = f"begins with {split.scheme!r}" if split.scheme else "has no scheme"
        raise ConfigError(f"The URL of the broker {mistake}: it must begin with amqp:// or amqps://.")
    if split.query or split.fragment:  # they would be ignored
        raise ConfigError(
            "The URL of the broker has parameters after '?' or '#': set them by Settings or AMQPWORKER_… instead, "
            "and write these characters in a password as %3F and %23."
        )
    if "/" in split.path[1:]:
        raise ConfigError("The URL of the broker has a virtual host with '/' in its name: write it as %2F.")
    user = unquote(split.username) if split.username is not None else "guest"
    password = unquote(split.password) if split.password is not None else "guest"
    virtual_host = unquote(split.path[1:]) or "/"
    return Address(
        host or "localhost",
        port or PORTS[split.scheme],
        virtual_host,
        user,
        password,
        split.scheme == "amqps",
        split.username is not None,
        is_default=url == DEFAULT_URL,
    )
