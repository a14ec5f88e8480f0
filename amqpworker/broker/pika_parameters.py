"""How pika connects to an address of the broker, and logs in."""

from __future__ import annotations

from typing import Any

import pika
import pika.credentials

from amqpworker.broker.address import Address
from amqpworker.broker.labels import client_properties
from amqpworker.broker.login import EXTERNAL, mechanism_missing, mechanism_of
from amqpworker.broker.tls import tls_context
from amqpworker.settings import Settings


def parameters(address: Address, settings: Settings, name: str) -> pika.ConnectionParameters:
    """Return pika's parameters to connect to `address`, with a connection name for the lists of the broker."""
    return pika.ConnectionParameters(
        host=address.host,
        port=address.port,
        virtual_host=address.virtual_host,
        credentials=login(address, settings),
        ssl_options=pika.SSLOptions(tls_context(settings), address.host) if address.tls else None,
        heartbeat=settings.heartbeat,
        socket_timeout=settings.connect_timeout,
        stack_timeout=settings.connect_timeout,
        blocked_connection_timeout=max(600.0, 2 * settings.send_timeout),
        connection_attempts=1,
        client_properties=client_properties(name, f"pika {pika.__version__}"),
    )


class _ReportsMissingMechanism:
    """Mixin before pika's credentials: raises ConfigError if the broker does not offer their mechanism, `TYPE`."""

    TYPE: str

    def response_for(self, start: Any) -> tuple[str | None, bytes | None]:
        answer: tuple[str | None, bytes | None] = super().response_for(start)  # type: ignore[misc]
        if answer[0] is None:
            offered = start.mechanisms
            raise mechanism_missing(
                self.TYPE, offered.decode(errors="replace") if isinstance(offered, bytes) else offered
            )
        return answer


class Password(_ReportsMissingMechanism, pika.PlainCredentials):  # type: ignore[misc]
    """A login by user and password."""


class Certificate(_ReportsMissingMechanism, pika.credentials.ExternalCredentials):  # type: ignore[misc]
    """A login by the certificate of a connection: EXTERNAL."""


def login(address: Address, settings: Settings) -> Password | Certificate:
    """Return how to log in."""
    if mechanism_of(address, settings) == EXTERNAL:
        return Certificate()
    return Password(address.user, address.password, erase_on_connect=False)
