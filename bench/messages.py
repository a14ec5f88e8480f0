"""
What amqpworker puts on the wire for a task, made without it: for the clients that are not amqpworker.

So the bare clients publish and consume the same exchange, properties and bodies as amqpworker does, and the broker's
work is the same.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from pika import BasicProperties
from pika.frame import Body, Header, Method
from pika.spec import Basic

from bench.load import QUEUE, arguments

TASKS_EXCHANGE = "amqpworker.tasks"
CHANNEL = 1


def body_of(index: int) -> bytes:
    """Return the JSON body of the task with this number."""
    return json.dumps(arguments(index), separators=(",", ":")).encode()


def properties(task: str, **more: Any) -> BasicProperties:
    """Return the properties of a task's message, for pika."""
    return BasicProperties(**attributes(task, **more))


def attributes(task: str, **more: Any) -> dict[str, Any]:
    """Return the properties of a task's message by the names that pika and aio-pika share."""
    now = time.time()
    sent = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {
        "content_type": "application/json",
        "delivery_mode": 2,
        "type": task,
        "message_id": str(uuid.UUID(bytes=os.urandom(16))),
        "timestamp": int(now),
        "headers": {"aw-first-sent": sent, **more.pop("headers", {})},
        **more,
    }


def frames(task: str, count: int, exchange: str = TASKS_EXCHANGE, key: str = QUEUE, **more: Any) -> Iterator[bytes]:
    """Yield this many messages as the bytes of their publishes."""
    publish = Method(CHANNEL, Basic.Publish(exchange=exchange, routing_key=key, mandatory=True)).marshal()
    for index in range(count):
        body = body_of(index)
        header = Header(CHANNEL, len(body), properties(task, **more)).marshal()
        yield b"".join((publish, header, Body(CHANNEL, body).marshal()))
