"""A leader of a scheduler that replies to commands as docs/wire.md describes, and sends no ticks."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pika
from pika.adapters.blocking_connection import BlockingChannel

from amqpworker.routing.topology import scheduler
from tests.support import raw_channel

LISTED = {
    "name": "nightly",
    "task": "shop.clean_up",
    "queue": "default",
    "timing": "30 2 * * * Europe/Paris",
    "last": "2026-11-28T01:30:00.000Z",
    "next": "2026-11-29T01:30:00.000Z",
    "paused": None,
    "lagging": None,
    "missed": 0,
    "last_missed": None,
    "skipped": 0,
}


class ScriptedLeader:
    """What it replies, and the commands that it got: `type`, body and headers of each."""

    def __init__(self, schedules: list[dict[str, Any]], **known: Any) -> None:
        self.value = {
            "scheduler": "main",
            "leader": "web-1:4711",
            "since": "2026-11-28T08:00:00.000Z",
            "until": "2026-11-28T23:59:58.500Z",
            "schedules": schedules,
            "differing": [],
            **known,
        }
        self.commands: list[tuple[str, dict[str, Any], dict[str, Any]]] = []

    def reply_to(self, kind: str, body: dict[str, Any]) -> Any:
        if kind == "list":
            return {"status": "done", "value": self.value}
        name = body["schedule"]
        if any(listed["name"] == name for listed in self.value["schedules"]):
            return {"status": "done", "value": {"schedule": name, "paused": kind == "pause"}}
        return {"status": "failed", "reason": "unknown-schedule", "error": f"Unknown schedule {name!r}."}


def declare_scheduler(url: str, name: str = "main") -> str:
    """Declare what a scheduler of the default namespace declares; return its queue."""
    made = scheduler("amqpworker", name)
    with raw_channel(url) as channel:
        channel.exchange_declare(made.exchanges[0].name, "direct", durable=True)
        channel.queue_declare(made.queues[0].name, durable=True, arguments=dict(made.queues[0].arguments))
        channel.queue_bind(made.queues[0].name, made.exchanges[0].name, name)
    return made.queues[0].name


@contextmanager
def leading(url: str, leader: ScriptedLeader) -> Iterator[ScriptedLeader]:
    """Consume the queue of the scheduler `main` in a thread for the time of a block."""
    queue = declare_scheduler(url)
    over = threading.Event()

    def consume() -> None:
        with raw_channel(url) as channel:
            for method, properties, body in channel.consume(queue, inactivity_timeout=0.05):
                if over.is_set():
                    return
                if method is not None:
                    _handle(channel, leader, properties, json.loads(body))
                    channel.basic_ack(method.delivery_tag)

    thread = threading.Thread(target=consume)
    thread.start()
    try:
        yield leader
    finally:
        over.set()
        thread.join()


def _handle(
    channel: BlockingChannel, leader: ScriptedLeader, properties: pika.BasicProperties, body: dict[str, Any]
) -> None:
    leader.commands.append((properties.type or "", body, properties.headers or {}))
    reply = json.dumps(leader.reply_to(properties.type or "", body))
    answer = pika.BasicProperties(correlation_id=properties.correlation_id)
    channel.basic_publish("", properties.reply_to or "", reply.encode(), answer)
