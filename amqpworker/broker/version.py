"""
Which RabbitMQ a connection leads to, as far as that changes what we ask of it.

Decides nothing but what cannot be read: that counts as the oldest.
"""

from __future__ import annotations

import re

from amqpworker.broker.seam import PublicConnection

__all__ = ["version_of"]


def version_of(connection: PublicConnection) -> tuple[int, ...]:
    """Return the broker's version: major, minor; empty where it does not tell."""
    told = (connection.server_properties or {}).get("version", "")
    return tuple(int(part) for part in re.findall(r"\d+", str(told))[:2])
