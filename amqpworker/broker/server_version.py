"""
Which RabbitMQ a connection leads to, as far as that changes what we ask of it.

Decides nothing but what cannot be read: that counts as the oldest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from amqpworker.broker.pika_connection import PikaConnection

__all__ = ["version_in", "version_of"]


def version_of(connection: PikaConnection) -> tuple[int, ...]:
    """Return the version of the broker that a connection leads to; empty where it does not tell."""
    return version_in(connection.server_properties or {})


def version_in(server_properties: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the version that a broker tells of itself: major, minor; empty where it does not."""
    return tuple(int(part) for part in re.findall(r"\d+", str(server_properties.get("version", "")))[:2])
