"""Why there is no connection, in a sentence, and which brokers are supported."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from amqpworker.errors import AccessRefused, AmqpWorkerError, ConfigError, NotConnected

Kind = Literal["unreachable", "denied", "incompatible"]
OLDEST_RABBITMQ = (3, 10)
# RabbitMQ does not name the flag.
STREAM_REFUSED = "'rabbit_stream_queue'", "feature flag is disabled"
NO_STREAMS = (
    "RabbitMQ at {broker} has no streams, which pausing and cancelling use: its feature flag stream_queue is off. Enable it "
    "(rabbitmqctl enable_feature_flag stream_queue), or run with AMQPWORKER_DECLARE=0, without both."
)


@dataclass(frozen=True, slots=True)
class ConnectionProblem:
    """
    Why there is no connection.

    `kind` is `unreachable` (another attempt may succeed), `denied` (login or virtual host) or `incompatible` (the server is
    not a RabbitMQ that we support).
    """

    text: str
    kind: Kind
    broker: str
    was_open: bool = False

    @property
    def has_no_streams(self) -> bool:
        """Whether the broker has ended the connection because it cannot declare a stream."""
        return all(part in self.text for part in STREAM_REFUSED)

    def error(self) -> AmqpWorkerError:
        """Return it as an error for a caller."""
        if self.has_no_streams:
            return ConfigError(NO_STREAMS.format(broker=self.broker))
        if self.kind == "denied":
            return AccessRefused(self.text)
        if self.kind == "incompatible":
            return ConfigError(self.text)
        return NotConnected(self.text)


def too_old(server_properties: Mapping[str, Any]) -> str | None:
    """Return a sentence if the server is not RabbitMQ 3.10 or later, the first with at-least-once dead-lettering."""
    product = server_properties.get("product")
    version = str(server_properties.get("version", ""))
    if product != "RabbitMQ":
        return f"The broker is {product!r}: amqpworker requires RabbitMQ 3.10 or later."
    if version_in(server_properties) < OLDEST_RABBITMQ:
        return f"The broker is RabbitMQ {version}: amqpworker requires 3.10 or later."
    return None


def version_in(server_properties: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the version in the properties of a broker: major, minor; empty if there is none."""
    return tuple(int(part) for part in re.findall(r"\d+", str(server_properties.get("version", "")))[:2])
