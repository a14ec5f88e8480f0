"""How to log in: by user and password, or by the certificate of the connection; and what if the broker does not offer that."""

from __future__ import annotations

from amqpworker.broker.address import Address
from amqpworker.errors import ConfigError
from amqpworker.settings import Settings

PLAIN, EXTERNAL = "PLAIN", "EXTERNAL"
ADVICE = {
    PLAIN: "leave the user out of the URL, and set tls_cert, to log in by certificate",
    EXTERNAL: "write user and password into the URL, or turn it on (the plugin rabbitmq_auth_mechanism_ssl, and "
    "auth_mechanisms.1 = EXTERNAL)",
}


def mechanism_of(address: Address, settings: Settings) -> str:
    """Return how to log in: by certificate if one is set and the URL names no user."""
    by_certificate = address.tls and settings.tls_cert is not None and not address.names_user
    return EXTERNAL if by_certificate else PLAIN


def mechanism_missing(mechanism: str, offered: str) -> ConfigError:
    """Return the error of a broker that offers other mechanisms only."""
    return ConfigError(
        f"The broker does not offer the login mechanism {mechanism}, only {offered}: {ADVICE[mechanism]}."
    )
