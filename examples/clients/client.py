"""Send to and call the task of tasks.py, with nothing but pika: `python client.py`. The broker is that of AMQPWORKER_URL."""

import json
import math
import os
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pika
from pika.exceptions import UnroutableError

REPLY_TO = "amq.rabbitmq.reply-to"
NO_REPLY = {"status": "failed", "reason": "timeout", "error_type": "", "error": "no reply; the task may have run"}
connection = pika.BlockingConnection(pika.URLParameters(os.environ.get("AMQPWORKER_URL", "amqp://localhost/%2F")))
channel = connection.channel()
channel.confirm_delivery()  # from now on, a publish waits for its confirm, so that a message which is returned is its own
replies: dict[str, Any] = {}  # by correlation id
# Replies go to the channel that publishes the calls, which must consume them before it publishes.
channel.basic_consume(REPLY_TO, lambda _c, _m, got, body: replies.update({got.correlation_id: json.loads(body)}), True)


def route(seconds: float) -> tuple[str, dict[str, Any]]:
    """Return the exchange and the headers of a message that is due in this many seconds."""
    units = math.ceil(seconds / 0.125)
    if not units:
        return "amqpworker.tasks", {}
    levels = [f"{bit:02d}" for bit in range(30, -1, -1) if units >> bit & 1]
    return f"amqpworker.delay.{levels[0]}", {"aw-eta": after(seconds), **{f"aw-wait-{level}": True for level in levels}}


def after(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


def send(parameters: dict[str, Any], queue: str = "welcomes", delay: float = 0, expires: float = 0, **more: str) -> str:
    """Publish a message and return its id, once the broker has stored it; raises UnroutableError if no queue took it."""
    exchange, headers = route(delay)
    headers |= {"aw-expires": after(expires)} if expires else {}
    properties = pika.BasicProperties("application/json", None, headers, 2, message_id=str(uuid4()), **more)
    properties.type = "shop.welcome"
    channel.basic_publish(exchange, queue, json.dumps(parameters).encode(), properties, mandatory=True)
    return str(properties.message_id)


def call(*calls: dict[str, Any], timeout: float = 30) -> list[Any]:
    """Run the task with each of these parameters, all at once; return what they returned, or why they failed."""
    ids, until = [str(uuid4()) for _ in calls], time.monotonic() + timeout  # a new correlation id for each call
    for correlation_id, parameters in zip(ids, calls, strict=True):
        send(parameters, expires=timeout, correlation_id=correlation_id, reply_to=REPLY_TO)
    while not replies.keys() >= {*ids} and time.monotonic() < until:
        connection.process_data_events(time_limit=1)
    found = [replies.pop(each, NO_REPLY) for each in ids]
    texts = [": ".join(one[name] for name in ("reason", "error_type", "error") if one.get(name)) for one in found]
    return [one["value"] if one["status"] == "done" else text for one, text in zip(found, texts, strict=True)]


if send({"user_id": 1}):
    print("sent")
if send({"user_id": 2}, delay=1.5):
    print("sent, due in 1.5 s")
print("call:", *call({"user_id": 3, "lang": "fr"}))
print("call:", *call({"user_id": -1}))
try:
    send({"user_id": 4}, queue="invoices")
except UnroutableError:
    print("send: queue invoices does not exist")
results = call(*({"user_id": number} for number in range(100)))
print(sum(result.startswith(f"user {number} ") for number, result in enumerate(results)), "of 100 replies are right")
