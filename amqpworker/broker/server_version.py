"""
The version of RabbitMQ on the other side of a connection.

Decides only that an unreadable version counts as the oldest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from amqpworker.broker.pika_connection import PikaConnection


def version_of(connection: PikaConnection) -> tuple[int, ...]:
    """Return the version of the broker of a connection; empty if it has none."""
    return version_in(connection.server_properties or {})


def version_in(server_properties: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the version in the properties of a broker: major, minor; empty if there is none."""
    return tuple(int(part) for part in re.findall(r"\d+", str(server_properties.get("version", "")))[:2])
