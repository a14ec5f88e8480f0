"""
The tasks of an app as an AsyncAPI 3.0 document, for pages and clients that are generated from it.

Decides what is what there: a queue is a channel, a task an operation, which the app receives, or sends if another program
runs it. The broker's address is not in it: it has a password, and differs between places.
"""

from __future__ import annotations

from typing import Any

from amqpworker.cli.task_messages import (
    FAILED,
    TaskMessage,
    TaskMessages,
    headers_schema,
    keys_of,
    reply_schema,
    rewritten,
    version_schema,
)
from amqpworker.model.message import JSON, PERSISTENT

ASYNCAPI = "3.0.0"
BINDING = "0.3.0"
WIRE = "1"
REFERENCE = "#/components/schemas/{model}"
HEADERS, FAILURE = "amqpworker.headers", "amqpworker.failed"
REPLIES = "amqpworker.replies"
DESCRIPTION = (
    "Tasks on RabbitMQ by amqpworker. A message is published to the exchange of its channel, with the queue as routing key, "
    "the task's name as the property `type`, confirms and `mandatory`. The version is that of amqpworker's wire contract."
)


def asyncapi_document(title: str, found: TaskMessages, exchange: str) -> dict[str, Any]:
    """Return the document; `exchange` is the one to which messages without a delay are published."""
    schemas: dict[str, Any] = {HEADERS: headers_schema(), FAILURE: FAILED}
    messages: dict[str, Any] = {}
    for one in found.messages:
        schemas[f"{one.key}.arguments"] = rewritten(one.payload.arguments, draft_07=True)
        schemas[f"{one.key}.result"] = rewritten(one.payload.result, draft_07=True)
        schemas[f"{one.key}.reply"] = reply_schema(_schema(f"{one.key}.result"), _schema(FAILURE)["$ref"])
        messages[f"{one.key}.message"] = _message(one)
        messages[f"{one.key}.reply"] = _reply_message(one)
    schemas |= rewritten({"$defs": found.classes}, draft_07=True)["$defs"]
    channels = keys_of(sorted({one.queue for one in found.messages}), taken=[REPLIES])
    return {
        "asyncapi": ASYNCAPI,
        "info": {"title": title, "version": WIRE, "description": DESCRIPTION},
        "defaultContentType": JSON,
        "channels": {
            **{key: _channel(queue, found, exchange) for queue, key in channels.items()},
            **({REPLIES: _replies(found)} if found.messages else {}),
        },
        "operations": {one.key: _operation(one, channels[one.queue]) for one in found.messages},
        "components": {"messages": messages, "schemas": schemas},
    }


def _schema(key: str) -> dict[str, str]:
    return {"$ref": REFERENCE.format(model=key)}


def _message(one: TaskMessage) -> dict[str, Any]:
    version = version_schema(one.version)
    return {
        "name": one.name,
        "title": one.name,
        **({"description": one.description} if one.description else {}),
        "contentType": JSON,
        "headers": {"type": "object", "allOf": [_schema(HEADERS), *([version] if version else [])]},
        "payload": _schema(f"{one.key}.arguments"),
        "correlationId": {"location": "$message.header#/correlation_id", "description": "AMQP's property, for calls"},
        "bindings": {"amqp": {"messageType": one.name, "bindingVersion": BINDING}},
        "x-amqpworker": {"queue": one.queue, "version": one.version, "aliases": list(one.names[1:])},
    }


def _reply_message(one: TaskMessage) -> dict[str, Any]:
    return {
        "name": f"{one.name}.reply",
        "title": f"Reply of {one.name}",
        "contentType": JSON,
        "payload": _schema(f"{one.key}.reply"),
        "correlationId": {"location": "$message.header#/correlation_id", "description": "that of the call"},
    }


def _channel(queue: str, found: TaskMessages, exchange: str) -> dict[str, Any]:
    keys = [f"{one.key}.message" for one in found.messages if one.queue == queue]
    place = {"name": exchange, "type": "direct", "durable": True, "autoDelete": False}
    return {
        "address": queue,
        "title": f"Queue {queue}",
        "messages": {key: {"$ref": f"#/components/messages/{key}"} for key in keys},
        "bindings": {"amqp": {"is": "routingKey", "exchange": place, "bindingVersion": BINDING}},
    }


def _replies(found: TaskMessages) -> dict[str, Any]:
    keys = [f"{one.key}.reply" for one in found.messages]
    return {
        "address": None,
        "title": "Replies to calls",
        "description": "The queue that a call names in its property `reply_to`.",
        "messages": {key: {"$ref": f"#/components/messages/{key}"} for key in keys},
    }


def _operation(one: TaskMessage, channel: str) -> dict[str, Any]:
    return {
        "action": "send" if one.is_remote else "receive",
        "title": one.name,
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [{"$ref": f"#/channels/{channel}/messages/{one.key}.message"}],
        "bindings": {"amqp": {"deliveryMode": PERSISTENT, "mandatory": True, "bindingVersion": BINDING}},
        "reply": {
            "address": {
                "location": "$message.header#/reply_to",
                "description": "AMQP's property; absent if it is not a call",
            },
            "channel": {"$ref": f"#/channels/{REPLIES}"},
            "messages": [{"$ref": f"#/channels/{REPLIES}/messages/{one.key}.reply"}],
        },
    }
