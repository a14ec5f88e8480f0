"""
The JSON of a reply to a call, which is also that of a stored result (wire contract v1).

    {"status": "done", "value": …}
    {"status": "failed", "reason": …, "error_type": …, "error": …, "traceback": …}

Decides how replies are written, and which foreign ones are accepted. The value stays JSON text, for the task's signature.
"""

from __future__ import annotations

import re
from json.decoder import JSONDecoder
from typing import Any, Literal, NamedTuple

from pydantic_core import from_json, to_json

from amqpworker.errors import MalformedReply
from amqpworker.model.outcome import Failure
from amqpworker.text import encodable

RESULT_REFUSED = "result-refused"
"""The reason of a task that is done, whose result its caller cannot have."""

HEAD = b'{"status":"done","value":'
MAX_TRACEBACK = 32 * 1024
MAX_TEXT = 8 * 1024
MAX_NAME = 256


class Reply(NamedTuple):
    """
    How a task ended, for its caller.

    If `status` is "done", `value` is JSON text and the other fields are empty; if it is "failed", `value` is `None`.
    """

    status: Literal["done", "failed"]
    value: bytes | None = None
    reason: str = ""
    error_type: str = ""
    text: str = ""
    traceback: str = ""


def encode_done(value: bytes | None) -> bytes:
    """Return the reply of a task that returned; `value` is JSON text, and `None` means null."""
    return HEAD + (b"null" if value is None else value) + b"}"


def encode_failed(reason: str, failure: Failure) -> bytes:
    """Return the reply of a task that failed, with its texts cut to a bounded size."""
    return to_json(
        {
            "status": "failed",
            "reason": encodable(reason[:MAX_NAME]),
            "error_type": encodable(failure.error_type[:MAX_NAME]),
            "error": encodable(failure.text[:MAX_TEXT]),
            # the end of a traceback shows where the error was raised
            "traceback": encodable(failure.traceback[-MAX_TRACEBACK:]),
        }
    )


def decode_reply(data: bytes) -> Reply:
    """Read a reply, which any program may have written; raises MalformedReply if it breaks the contract."""
    if data.startswith(HEAD) and data.endswith(b"}"):
        value = data[len(HEAD) : -1]
        try:
            from_json(value)
        except ValueError:
            pass  # there is more than the value, or it is not JSON
        else:
            return Reply("done", value)
    return _read_any(data)


def _read_any(data: bytes) -> Reply:
    try:
        text = data.decode()
        from_json(data)
        fields = _members(text)
    except (ValueError, RecursionError) as error:
        raise _malformed(f"it is not JSON ({str(error)[:80]})", data) from None
    status = _text(fields, "status", data)
    if status == "done":
        if "value" not in fields:
            raise _malformed("it is done and has no value", data)
        return Reply("done", fields["value"].encode())
    if status == "failed":
        return Reply("failed", None, *(_text(fields, name, data, default) for name, default in _FAILED_FIELDS.items()))
    raise _malformed(f"its status is {status[:40]!r}", data)


_FAILED_FIELDS = {"reason": None, "error_type": "", "error": "", "traceback": ""}

# Numbers stay text: a long one must neither be rounded nor cost anything. Since no parser returns the text of a value,
# the members are cut out here: the decoder finds where each value ends.
_DECODER = JSONDecoder(parse_int=str, parse_float=str, parse_constant=str)
_NAME = re.compile(r'[{,\s]*("[^"\\]*(?:\\.[^"\\]*)*")\s*:\s*')


def _members(text: str) -> dict[str, str]:
    """Return the members of an object in valid JSON, each value as its text; the last of a name counts."""
    members: dict[str, str] = {}
    end = 0
    while name := _NAME.match(text, end):
        _, end = _DECODER.raw_decode(text, name.end())
        members[from_json(name[1])] = text[name.end() : end]
    return members


def _text(fields: dict[str, str], name: str, data: bytes, default: str | None = None) -> str:
    if name not in fields:
        if default is None:
            raise _malformed(f"it has no {name}", data)
        return default
    value: Any = from_json(fields[name])
    if not isinstance(value, str):
        raise _malformed(f"its {name} is not a string", data)
    return value


def _malformed(reason: str, data: bytes) -> MalformedReply:
    return MalformedReply(f"The reply cannot be read: {reason}. It begins with {data[:80]!r} ({len(data)} bytes).")
