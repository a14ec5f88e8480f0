"""
The wire shape of an answer to a call and of a stored result (wire contract v1).

    {"status": "done", "value": …}
    {"status": "failed", "reason": …, "error_type": …, "error": …, "traceback": …}

Decides how they are written, and what of a foreign one is believed. The value stays the JSON text that it was: what
type it has is the task's signature to say.
"""

from __future__ import annotations

from json.decoder import JSONDecoder
from typing import Any, Literal, NamedTuple

from pydantic_core import from_json, to_json

from amqpworker.errors import MalformedReply
from amqpworker.model.outcome import Failure

__all__ = ["Answer", "done", "failed", "read"]

HEAD = b'{"status":"done","value":'
TRACEBACK_LIMIT = 32 * 1024
TEXT_LIMIT = 8 * 1024
NAME_LIMIT = 256


class Answer(NamedTuple):
    """
    How a task ended, for the one who asked.

    `value` is JSON text where `status` is "done" and `None` where it is "failed"; the other fields are the reverse.
    """

    status: Literal["done", "failed"]
    value: bytes | None = None
    reason: str = ""
    error_type: str = ""
    text: str = ""
    traceback: str = ""


def done(value: bytes | None) -> bytes:
    """Return the answer of a task that returned; `value` is JSON text, `None` stands for null."""
    return HEAD + (b"null" if value is None else value) + b"}"


def failed(reason: str, failure: Failure) -> bytes:
    """Return the answer of a task that ended without a result, with its texts cut to a bounded size."""
    return to_json(
        {
            "status": "failed",
            "reason": _clean(reason[:NAME_LIMIT]),
            "error_type": _clean(failure.error_type[:NAME_LIMIT]),
            "error": _clean(failure.text[:TEXT_LIMIT]),
            # the end of a traceback tells where it happened
            "traceback": _clean(failure.traceback[-TRACEBACK_LIMIT:]),
        }
    )


def read(data: bytes) -> Answer:
    """
    Read an answer, whoever wrote it.

    Raises:
        MalformedReply: it is not JSON, not an object, or lacks what the contract asks for.
    """
    if data.startswith(HEAD) and data.endswith(b"}"):
        value = data[len(HEAD) : -1]
        try:
            from_json(value)
        except ValueError:
            pass  # what stands there is more than the value, or no JSON: the long way tells
        else:
            return Answer("done", value)
    return _read_any(data)


def _read_any(data: bytes) -> Answer:
    fields = _split(data)
    status = _text(fields, "status", data)
    if status == "done":
        if "value" not in fields:
            raise _malformed("it is done and has no value", data)
        return Answer("done", fields["value"].encode())
    if status == "failed":
        reason, error_type, text, traceback = (
            _text(fields, name, data, default) for name, default in _FAILED_FIELDS.items()
        )
        return Answer("failed", None, reason, error_type, text, traceback)
    raise _malformed(f"its status is {status[:40]!r}", data)


_FAILED_FIELDS = {"reason": None, "error_type": "", "error": "", "traceback": ""}

# numbers stay text: a long one must neither be rounded nor cost anything
_PARTS = JSONDecoder(parse_int=str, parse_float=str, parse_constant=str)


def _split(data: bytes) -> dict[str, str]:
    """Return the members of a JSON object as the text that each of them has, the last one of a name."""
    try:
        text = data.decode()
        from_json(data)
        return _members(text)
    except (ValueError, RecursionError) as error:
        raise _malformed(f"it is not JSON ({str(error)[:80]})", data) from None


def _members(text: str) -> dict[str, str]:
    """Cut valid JSON into the members of its object."""
    at = _after_space(text, 0)
    if text[at] != "{":
        raise ValueError("not an object")
    members: dict[str, str] = {}
    at = _after_space(text, at + 1)
    while text[at] != "}":
        name, at = _PARTS.raw_decode(text, at)
        start = _after_space(text, _after_space(text, at) + 1)
        _, end = _PARTS.raw_decode(text, start)
        members[name] = text[start:end]
        at = _after_space(text, end)
        if text[at] == ",":
            at = _after_space(text, at + 1)
    return members


def _after_space(text: str, at: int) -> int:
    while text[at] in " \t\n\r":
        at += 1
    return at


def _text(fields: dict[str, str], name: str, data: bytes, default: str | None = None) -> str:
    if name not in fields:
        if default is None:
            raise _malformed(f"it has no {name}", data)
        return default
    value: Any = from_json(fields[name])
    if not isinstance(value, str):
        raise _malformed(f"its {name} is not a text", data)
    return value


def _clean(text: str) -> str:
    """Return the text without lone surrogates, which JSON cannot carry."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text


def _malformed(why: str, data: bytes) -> MalformedReply:
    return MalformedReply(f"The answer cannot be read: {why}. It begins with {data[:80]!r} ({len(data)} bytes).")
