"""
Values of known types to JSON and back: one `ValueSerializer` for a task's parameters, one for what it returns.

What was written is read back and compared only if `schema` found that it may arrive as another value, so values of plain
types pay nothing for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import (
    ErrorDetails,
    PydanticSerializationError,
    SchemaSerializer,
    SchemaValidator,
    core_schema,
    from_json,
    to_json,
)

from amqpworker.signature.core_nodes import rebuilt_below
from amqpworker.signature.round_trip import Difference, difference
from amqpworker.signature.schema import CORE_CONFIG, ValueSchema
from amqpworker.text import cut

SUSPECT_NUMBER = re.compile(
    rb"[0-9NI](?:(?<=N)aN|(?<=I)nfinity|(?<=[0-9])(?:[eE]\+?[0-9]{3}|(?<![0-9][0-9])[0-9]{199}))"
)
"""Each NaN or infinity in JSON has one of these; few of the bodies with one hold such a number."""

REPLACEMENT = "\N{REPLACEMENT CHARACTER}".encode()  # what pydantic writes for a lone surrogate in a key
NOT_FINITE = "The body has a number that is NaN or infinite"
SURROGATE = re.compile("[\ud800-\udfff]")
LONE_SURROGATE = "It has a lone surrogate, which is not text"
CHANGED_AGAIN = "JSON cannot hold all of it, or its validators, serializers or __post_init__ change it again on arrival"
UNKNOWN = "Unable to serialize unknown type: "
USE_HINT = "use a more specific type hint"
NOT_WRITABLE = "It cannot be written as JSON"
MAX_DIGITS = 4300  # Python's own limit for the text of an int, and that of pydantic's parser
DEEP = 150  # pydantic's parser ends at 200 levels
LARGE = 1 << 20
MANY_ERRORS = 1000
MAX_SHOWN = 3
MAX_NAME = 60
MAX_TEXT = 200
PYDANTIC_KINDS = frozenset(get_args(core_schema.ErrorType))
UNKNOWN_KEYS = frozenset({"extra_forbidden", "unexpected_keyword_argument"})
VALIDATOR_KINDS = frozenset({"value_error", "assertion_error"})


class NotSerializable(ValueError):
    """JSON cannot carry a value that its hint allows, at this path; the text has the reason, never the value."""

    def __init__(self, text: str, path: tuple[str | int, ...] = ()) -> None:
        super().__init__(text)
        self.path = path


class NotJson(ValueError):
    """Bytes that are not JSON, or have a number that is NaN or infinite."""


class ValueSerializer:
    """Writes and reads the values of one schema."""

    __slots__ = ("_check", "_read", "_verify", "_write", "aliases", "names")

    def __init__(self, schema: ValueSchema) -> None:
        validator = SchemaValidator(_with_checked_ints(schema.schema), CORE_CONFIG)
        serializer = SchemaSerializer(schema.schema, CORE_CONFIG)
        self._check = validator.validate_python
        self._read = validator.validate_json
        self._write = serializer.to_json
        self._verify = schema.verify
        self.aliases = schema.aliases
        self.names = schema.names
        """The names of fields, which an error may show; anything else in its path may be a secret."""

    def write(self, value: Any) -> bytes:
        """Return the value as compact JSON, after checking it; raises whatever pydantic, a validator or the value raises."""
        value = self._check(value)
        try:
            body = self._write(value, warnings=False, by_alias=True, round_trip=True)
        except PydanticSerializationError as error:
            if UNKNOWN not in str(error):
                raise
            raise self._not_serializable(value) from None
        if self._verify or len(body) > MAX_DIGITS or REPLACEMENT in body:
            self._confirm(value, body)
        return body

    def read(self, body: bytes) -> Any:
        """Return the value that was written as this JSON; raises as `write` does, NotJson if a number is NaN or infinite."""
        value = self._read(body)
        if self._verify and _has_non_finite(body):
            raise NotJson(NOT_FINITE)
        return value

    def _not_serializable(self, value: Any) -> NotSerializable:
        """Find the part for which pydantic has no JSON."""
        body = self._write(value, fallback=lambda _: None, warnings=False, by_alias=True, round_trip=True)
        with suppress(ValidationError):
            if found := difference(value, self._read(body)):
                part = f"{'a key of type ' * found.are_keys}{type(found.sent).__name__}"
                return NotSerializable(f"{part} is not JSON serializable; {USE_HINT}", found.path)
        return NotSerializable(NOT_WRITABLE)

    def _confirm(self, value: Any, body: bytes) -> None:
        """Refuse what was written if it cannot be read, or would arrive as another value."""
        if self._verify and _has_non_finite(body):
            raise NotSerializable("Input should be a finite number")
        if body.count(b"[") + body.count(b"{") > DEEP:
            _check_depth(body)
        try:
            arrived = self._read(body)
        except ValidationError as error:
            raise NotSerializable(
                f"Its JSON cannot be read back: {explain(error, self.names, 'the value')}; its serializer and validators must fit"
            ) from None
        if arrived != value and (found := difference(value, arrived)):
            raise NotSerializable(_change(found), found.path)


def _with_checked_ints(node: Any) -> Any:
    """Return a schema that refuses a member of an Enum for an int, unless its value is one: pydantic takes any value of it."""
    if node["type"] != "int" or "ref" in node:
        return rebuilt_below(node, _with_checked_ints)
    return {"type": "chain", "steps": [node, {"type": "int", "strict": True}]}


def _change(found: Difference) -> str:
    """Return how a value would arrive as another, and what to do about it."""
    sent, arrived = type(found.sent), type(found.arrived)
    if isinstance(found.sent, str) and SURROGATE.search(found.sent):
        return LONE_SURROGATE
    if found.are_keys and sent is not arrived:
        return f"a key of type {sent.__name__} would arrive as {arrived.__name__}; {USE_HINT}"
    if found.path and str(found.path[-1]).startswith("_"):
        return "a private attribute is not sent; use a field"
    if sent is arrived:
        return f"{'a key' if found.are_keys else 'it'} would arrive as another {sent.__name__}: {CHANGED_AGAIN}"
    if issubclass(sent, arrived):
        remedy = f"use {sent.__name__} or a tagged union (pydantic's Discriminator) as its hint"
    else:
        remedy = USE_HINT
    return f"{sent.__name__} would arrive as {arrived.__name__}; {remedy}"


def not_json(error: Exception, body: bytes) -> str | None:
    """Return why a body that could not be read is not a JSON object; `None` if it is one and only its values do not fit."""
    if isinstance(error, NotJson):
        return str(error)
    if not isinstance(error, ValidationError):
        return None
    if error.error_count() == 1:
        details = error.errors(include_url=False, include_context=False, include_input=False)[0]
        if not details["loc"] and details["type"] == "json_invalid":
            return f"The body is not JSON: {details['msg'].removeprefix('Invalid JSON: ')}"
        if not details["loc"] and details["type"] == "dict_type":
            return "The body is not a JSON object"
    return NOT_FINITE if _has_non_finite(body) else None


def has_unknown_keys(error: Exception) -> bool:
    """Return whether what was read has a key that its type does not have, as newer code may write it."""
    if not isinstance(error, ValidationError) or error.error_count() > MANY_ERRORS:
        return False
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return any(details["type"] in UNKNOWN_KEYS for details in found)


def explain(error: Exception, names: AbstractSet[str], value_name: str | None = None) -> str:
    """
    Return what was wrong as one sentence without its full stop, and without any of the values.

    `value_name` names the whole value; without it the value is an object whose keys are parameters.
    """
    if isinstance(error, ValidationError):
        count = error.error_count()
        if count > MANY_ERRORS:
            return f"{count} values in it do not fit"
        shown = [_problem(details, names, value_name) for details in error.errors(include_url=False)[:MAX_SHOWN]]
        return "; ".join(shown) + (f"; and {count - MAX_SHOWN} more" if count > MAX_SHOWN else "")
    steps = _steps(error.path, names) if isinstance(error, NotSerializable) else ""
    return f"{value_name or 'a value'}{steps}: {_why(error)}"


def _problem(details: ErrorDetails, names: AbstractSet[str], value_name: str | None) -> str:
    path = details["loc"]
    where = value_name
    if where is None:
        if not path:
            return f"the arguments: {_message(details)}"
        name = cut(repr(path[0]), MAX_NAME)
        if len(path) == 1 and details["type"] == "missing":
            return f"parameter {name} is missing"
        if len(path) == 1 and details["type"] == "extra_forbidden":
            return f"there is no parameter {name}"
        where, path = f"parameter {name}", path[1:]
    if path and details["type"] in UNKNOWN_KEYS:
        # The name is the only thing by which the sender finds the mistake.
        return f"{where}{_steps(path[:-1], names)}: There is no field {cut(repr(path[-1]), MAX_NAME)}"
    return f"{where}{_steps(path, names)}: {_message(details)}"


def _steps(path: Iterable[str | int], names: AbstractSet[str]) -> str:
    """Return the path to a part, without the keys of a user's dict."""
    steps = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" if step in names else "" for step in path)
    return f"{' at ' if steps else ''}{steps.removeprefix('.')}"


def _message(details: ErrorDetails) -> str:
    """Return pydantic's text, and that of a user's validator only if it does not repeat the value."""
    kind, text = details["type"], details["msg"].rstrip(".")
    if kind == "union_tag_invalid":
        return "Input tag is none of the expected tags"
    if kind in VALIDATOR_KINDS or kind not in PYDANTIC_KINDS:
        value = details["input"]
        if not isinstance(value, str | int | float) or str(value) in text:
            return "Value refused by its validator"
    return cut(" ".join(text.split()), MAX_TEXT)


def _why(error: Exception) -> str:
    """Return the reason of an error without details, as far as its text is known not to hold a value."""
    text = str(error)
    if isinstance(error, NotSerializable | NotJson):
        return text
    if isinstance(error, RecursionError) or "Circular reference" in text or "depth exceeded" in text:
        return "It is nested too deep, or contains itself"
    if text.startswith("number out of range"):
        return f"An integer has more than {MAX_DIGITS} digits"
    if not isinstance(error, PydanticSerializationError):
        return f"A validator raised {type(error).__name__}"
    if "surrogates not allowed" in text:
        return LONE_SURROGATE
    if "invalid utf-8" in text:
        return "A model has bytes that are not UTF-8, and its model_config does not ask for base64"
    return NOT_WRITABLE


def _has_non_finite(body: bytes) -> bool:
    if not SUSPECT_NUMBER.search(body):
        return False
    value = from_json(body)
    return to_json(value, inf_nan_mode="null") != to_json(value, inf_nan_mode="constants")


def _check_depth(body: bytes) -> None:
    try:  # as deep as it will be inside a reply
        from_json(b"[[%b]]" % body)
    except ValueError:
        raise NotSerializable("It is nested too deep") from None
