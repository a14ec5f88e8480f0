"""What `Message.dump` and `Message.load` do: a message as a dictionary of JSON's types, without anything of a connection."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from amqpworker.errors import InvalidArguments
from amqpworker.model.message import Message, fits_short_string

TAG = "$"
"""A dictionary with one key, which begins with this, is a value of a header that JSON does not have."""

REQUIRED = {"task", "queue", "body", "id"}


def dump_message(message: Message) -> dict[str, Any]:
    """Return the dump of a message; what is not set is left out."""
    try:
        body = message.body.decode()
    except UnicodeDecodeError:
        raise InvalidArguments("Message.dump(): the body is not UTF-8, so it is not JSON either.") from None
    dumped: dict[str, Any] = {"task": message.task, "queue": message.queue, "body": body, "id": message.id}
    if message.headers:
        dumped["headers"] = {name: dump_value(value) for name, value in message.headers.items()}
    for name in ("delay", "at", "expires", "resend", "first_sent"):
        value = getattr(message, name)
        if value is not None:
            dumped[name] = _time_text(value) if isinstance(value, datetime) else value
    return dumped


def load_message(dumped: Mapping[str, Any]) -> Message:
    """Return the message that was dumped, with its id and the time when it was sent first, if it was."""
    if not isinstance(dumped, Mapping):
        raise InvalidArguments(f"Message.load(): it takes what dump() returned, got a {type(dumped).__name__}.")
    if wrong := [*(REQUIRED - dumped.keys()), *(dumped.keys() - _LOADERS.keys())]:
        raise InvalidArguments(f"Message.load(): the key {wrong[0]!r:.60} is missing or unknown.")
    values: dict[str, Any] = {}
    for name, value in dumped.items():
        try:
            values[name] = _LOADERS[name](value)
        except (TypeError, ValueError, KeyError, ArithmeticError):
            raise InvalidArguments(f"Message.load(): the value of {name!r} is not valid.") from None
    first_sent = values.pop("first_sent", None)
    message = Message(**values)
    if first_sent is not None:
        message.begin_sending(first_sent)
    return message


def dump_value(value: Any) -> Any:
    """Return the value of a header in JSON's types; raises InvalidArguments if AMQP does not have its type."""
    match value:
        case float() if not math.isfinite(value):
            return {"$float": str(value)}
        case None | bool() | int() | float() | str():
            return value
        case bytes() | bytearray():
            return {"$bytes": base64.b64encode(value).decode()}
        case datetime():
            return {"$time": _time_text(value)}
        case Decimal():
            return {"$decimal": str(value)}
        case list() | tuple():
            return [dump_value(item) for item in value]
        case Mapping():
            table = {name: dump_value(item) for name, item in value.items()}
            return {"$table": table} if any(name.startswith(TAG) for name in table) else table
    raise InvalidArguments(
        f"Message.dump(): a header has a value of type {type(value).__name__}, which AMQP does not have."
    )


def _loaded(value: Any) -> Any:
    if isinstance(value, list):
        return [_loaded(item) for item in value]
    if not isinstance(value, dict):
        return value
    tag = next(iter(value), "")
    if len(value) == 1 and tag.startswith(TAG):
        return _TAGS[tag](value[tag])
    return load_table(value)


def load_table(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return headers out of their dump; raises a ValueError, KeyError, TypeError or ArithmeticError if a value is not valid."""
    return {name: _loaded(item) for name, item in value.items()}


def _time_text(time: datetime) -> str:
    """Return a time in UTC; one without a zone stays without."""
    return (time if time.tzinfo is None else time.astimezone(UTC)).isoformat()


def _name(value: Any) -> str:
    if not fits_short_string(value):
        raise ValueError(value)
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(value)
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(value)
    return value


_TAGS: dict[str, Callable[[Any], Any]] = {
    "$float": float,
    "$bytes": base64.b64decode,
    "$time": datetime.fromisoformat,
    "$decimal": Decimal,
    "$table": load_table,
}
_LOADERS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("task", "queue", "id"), _name),
    "body": str.encode,
    "headers": lambda value: load_table({**value}),
    "delay": _number,
    "at": datetime.fromisoformat,
    "expires": lambda value: datetime.fromisoformat(value) if isinstance(value, str) else _number(value),
    "resend": _flag,
    "first_sent": lambda value: int(_number(value)),
}
