"""
Where the broker is: the URL, or a comma-separated list of them, as values that were checked.

Decides what a URL may say. Connecting is left to `connection`.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit

import pika

from amqpworker.broker.labels import client_properties
from amqpworker.errors import ConfigError
from amqpworker.settings import Settings

__all__ = ["Address", "addresses", "parameters"]

PORTS = {"amqp": 5672, "amqps": 5671}


@dataclass(frozen=True, slots=True)
class Address:
    """One node of the broker; the password does not show in its `repr`."""

    host: str
    port: int
    virtual_host: str
    user: str
    password: str = field(repr=False)
    tls: bool

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def addresses(url: str) -> tuple[Address, ...]:
    """
    Read a URL, or several separated by commas: they are tried in turn.

    Raises:
        ConfigError: one of them is no AMQP URL; the text says what is wrong and shows no password.
    """
    found = tuple(address(part.strip()) for part in url.split(",") if part.strip())
    if not found:
        raise ConfigError("The broker's URL is empty: give one such as amqp://user:password@host:5672/vhost.")
    return found


def address(url: str) -> Address:
    """Read one URL (https://www.rabbitmq.com/docs/uri-spec); without a path the virtual host is `/`."""
    try:
        split = urlsplit(url)
        host, port = split.hostname, split.port
    except ValueError:
        # Not what Python says: where a sign in a password is not encoded, the "port" that it shows is the password's.
        raise ConfigError(
            "The broker's URL cannot be read: after the host comes a port from 0 to 65535, IPv6 stands in brackets, and "
            "/, ?, # and @ in a password are written as %2F, %3F, %23 and %40."
        ) from None
    if split.scheme not in PORTS:
        told = f"begins with {split.scheme!r}" if split.scheme else "has no scheme"
        raise ConfigError(f"The broker's URL {told}: it must begin with amqp:// or amqps://.")
    refuse_extras(split)
    user = unquote(split.username) if split.username is not None else "guest"
    password = unquote(split.password) if split.password is not None else "guest"
    virtual_host = unquote(split.path[1:]) or "/"
    return Address(
        host or "localhost", port or PORTS[split.scheme], virtual_host, user, password, split.scheme == "amqps"
    )


def refuse_extras(split: SplitResult) -> None:
    """Refuse what would be ignored."""
    if split.query or split.fragment:
        raise ConfigError(
            "The broker's URL has parameters behind '?' or '#': set them by Settings or AMQPWORKER_… instead, "
            "and write these signs in a password as %3F and %23."
        )
    if "/" in split.path[1:]:
        raise ConfigError("The broker's URL names a virtual host with '/' in it: write that as %2F.")


def parameters(address: Address, settings: Settings, name: str) -> pika.ConnectionParameters:
    """Return pika's parameters for one attempt to connect to `address`, under a name that people see at the broker."""
    return pika.ConnectionParameters(
        host=address.host,
        port=address.port,
        virtual_host=address.virtual_host,
        credentials=pika.PlainCredentials(address.user, address.password, erase_on_connect=False),
        ssl_options=pika.SSLOptions(tls_context(settings), address.host) if address.tls else None,
        heartbeat=settings.heartbeat,
        socket_timeout=settings.connect_timeout,
        stack_timeout=settings.connect_timeout,
        blocked_connection_timeout=max(600.0, 2 * settings.send_timeout),
        connection_attempts=1,
        client_properties=client_properties(name),
    )


def tls_context(settings: Settings) -> ssl.SSLContext:
    """
    Return a context that verifies the broker's certificate and name, made anew for each connection.

    Raises:
        ConfigError: a certificate or key file cannot be used.
    """
    context = ssl.create_default_context()
    used = "tls_ca", settings.tls_ca
    try:
        if settings.tls_ca is not None:
            context.load_verify_locations(settings.tls_ca)
        used = "tls_cert or tls_key", settings.tls_cert
        if settings.tls_cert is not None:
            context.load_cert_chain(settings.tls_cert, settings.tls_key)
    except OSError as error:  # an SSLError is one, too
        reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
        raise ConfigError(f"The file of the setting {used[0]}, {str(used[1])!r}, cannot be used: {reason}.") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
