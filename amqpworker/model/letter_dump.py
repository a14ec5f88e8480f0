"""
A dead letter as one line of JSON, in a file of exported letters, and back.

Pure. Decides which keys a line has, and what a line must have to be a letter again. A body that is not UTF-8 and values of
headers that JSON does not have are written as in `message_dump`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from amqpworker.errors import InvalidArguments
from amqpworker.model import headers as h
from amqpworker.model.dead_letter import DeadLetter
from amqpworker.model.message import MAX_SHORT_BYTES, PROPERTY_NAMES, Delivery, Properties, fits_short_string
from amqpworker.model.message_dump import dump_value, load_table

NUMBERS = frozenset({"delivery_mode", "priority", "timestamp"})
REQUIRED = ("queue", "routing_key", "properties", "headers", "body")


def dump_letter(letter: DeadLetter) -> str:
    """Return the line of a letter, without the end of the line, in ASCII."""
    message = letter.message
    properties = message.properties.present()
    headers = properties.pop("headers", {})
    line: dict[str, Any] = {
        "name": letter.name,
        "queue": letter.queue,
        "task": letter.task,
        "reason": letter.reason,
        "failed_at": None if letter.failed_at is None else h.now_text(letter.failed_at.timestamp()),
        "routing_key": message.routing_key,
        "properties": properties,
        "headers": {name: dump_value(value) for name, value in headers.items()},
        "body": _dumped_body(message.body),
    }
    if message.problem:
        line["problem"] = message.problem
    return json.dumps(line)


def load_letter(line: str | bytes, number: int) -> DeadLetter:
    """Return the letter of the line with this number, from 1; raises InvalidArguments if it is not the line of a letter."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        raise InvalidArguments(f"Line {number} is not JSON: the file may have been cut off.") from None
    if not isinstance(found, Mapping) or (missing := [name for name in REQUIRED if name not in found]):
        lacks = "it is not an object" if not isinstance(found, Mapping) else f"it has no {missing[0]!r}"
        raise InvalidArguments(f"Line {number} is not a dead letter: {lacks}.")
    for name in ("queue", "routing_key"):
        if not fits_short_string(found[name]):
            raise InvalidArguments(f"Line {number}: {name!r} must be 1 to {MAX_SHORT_BYTES} bytes of text.")
    try:
        properties = _loaded_properties(found["properties"])
        properties.headers = load_table({**found["headers"]})
        body = _loaded_body(found["body"])
    except (TypeError, ValueError, KeyError, ArithmeticError) as error:
        raise InvalidArguments(f"Line {number}: its properties, headers or body are not valid ({error}).") from None
    message = Delivery(number, False, "", found["routing_key"], properties, body)
    return DeadLetter.of(message, found["queue"], number)


def _dumped_body(body: bytes) -> Any:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return {"$bytes": base64.b64encode(body).decode()}


def _loaded_body(body: Any) -> bytes:
    if isinstance(body, str):
        return body.encode()
    return base64.b64decode(body["$bytes"], validate=True)


def _loaded_properties(found: Mapping[str, Any]) -> Properties:
    properties = Properties()
    for name, value in {**found}.items():
        kind = int if name in NUMBERS else str
        if name not in PROPERTY_NAMES or name == "headers" or type(value) is not kind:
            raise ValueError(f"property {name!r:.60}")
        setattr(properties, name, value)
    return properties
