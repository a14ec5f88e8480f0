"""
The tasks of an app as one JSON Schema (draft 2020-12), for generators of code and validators in any language.

Decides how a message is an object for it: its routing key, properties, headers, and its body as the JSON that it is.
"""

from __future__ import annotations

from typing import Any

from amqpworker.cli.task_messages import (
    FAILED,
    TaskMessage,
    TaskMessages,
    headers_schema,
    reply_schema,
    rewritten,
    version_schema,
)
from amqpworker.model.message import JSON, MAX_SHORT_BYTES, PERSISTENT
from amqpworker.routing.topology import LEVELS, Names

DIALECT = "https://json-schema.org/draft/2020-12/schema"
REFERENCE = "#/$defs/{model}"
EXCHANGE, HEADERS, FAILURE = "amqpworker.exchange", "amqpworker.headers", "amqpworker.failed"
DESCRIPTION = (
    "A message of one of these tasks. For each task, $defs has TASK.message, TASK.arguments (the body), TASK.result (what it "
    "returns) and TASK.reply (the body of a reply to a call, and a stored result)."
)


def json_schema_document(title: str, found: TaskMessages, names: Names) -> dict[str, Any]:
    """Return the schema of any message of the tasks, with the schemas of each of them in `$defs`."""
    definitions: dict[str, Any] = {}
    for one in found.messages:
        definitions[f"{one.key}.message"] = _message(one)
        definitions[f"{one.key}.arguments"] = rewritten(one.payload.arguments)
        definitions[f"{one.key}.result"] = rewritten(one.payload.result)
        definitions[f"{one.key}.reply"] = reply_schema({"$ref": _reference(f"{one.key}.result")}, _reference(FAILURE))
    exchanges = [names.tasks, names.due, *map(names.level, range(LEVELS))]
    definitions |= {EXCHANGE: {"enum": exchanges}, HEADERS: headers_schema(), FAILURE: FAILED}
    definitions |= rewritten({"$defs": found.classes})["$defs"]
    document: dict[str, Any] = {"$schema": DIALECT, "title": f"Messages of {title}", "description": DESCRIPTION}
    if found.messages:
        document["oneOf"] = [{"$ref": _reference(f"{one.key}.message")} for one in found.messages]
    return document | {"$defs": definitions}


def _reference(key: str) -> str:
    return REFERENCE.format(model=key)


def _message(one: TaskMessage) -> dict[str, Any]:
    properties = {
        "type": {"enum": list(one.names)},
        "message_id": {"type": "string", "maxLength": MAX_SHORT_BYTES},
        "content_type": {"const": JSON},
        "delivery_mode": {"const": PERSISTENT},
        "correlation_id": {"type": "string", "maxLength": MAX_SHORT_BYTES},
        "reply_to": {"type": "string", "maxLength": MAX_SHORT_BYTES},
    }
    version = version_schema(one.version)
    parts = {
        "exchange": {"$ref": _reference(EXCHANGE)},
        "routing_key": {"const": one.queue},
        "properties": {"type": "object", "properties": properties, "required": ["type"]},
        "headers": {"allOf": [{"$ref": _reference(HEADERS)}, *([version] if version else [])]},
        "body": {"$ref": _reference(f"{one.key}.arguments")},
    }
    required = ["routing_key", "properties", "body", *(["headers"] if version else [])]
    made: dict[str, Any] = {"title": one.name}
    if one.description:
        made["description"] = one.description
    return made | {"type": "object", "properties": parts, "required": required}
