"""
Values of known types to JSON and back: one `Shape` for a task's parameters, one for what it returns.

pydantic does the work. What it does not see is looked at only where `schema` found that it may occur, so that plainly
typed values pay nothing for it. Which value belongs to which parameter is `task`'s to say.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import (
    ErrorDetails,
    PydanticSerializationError,
    SchemaSerializer,
    SchemaValidator,
    core_schema,
    from_json,
)

from amqpworker.signature.round_trip import Difference, difference
from amqpworker.signature.schema import CORE_CONFIG, ValueSchema

__all__ = ["LARGE", "NotJson", "NotSerializable", "Shape", "explain", "not_json"]

SUSPECT_NUMBER = re.compile(
    rb"[0-9NI](?:(?<=N)aN|(?<=I)nfinity|(?<=[0-9])(?:[eE]\+?[0-9]{3}|(?<![0-9][0-9])[0-9]{199}))"
)
"""Any NaN or infinity in JSON has one of these; most of what has one is innocent, and is looked at in full."""

REPLACEMENT = "\N{REPLACEMENT CHARACTER}".encode()  # what pydantic writes for a lone surrogate in a key
NOT_FINITE = "The body has a number that is NaN or infinite"
NO_TEXT = "It has a lone surrogate, which is no text"
CHANGED_AGAIN = (
    "JSON has no room for all of it, or its validators, serializers or __post_init__ change it again on arrival"
)
UNKNOWN = "Unable to serialize unknown type: "
MOST_DIGITS = 4300  # Python's own limit for the text of an int, and that of pydantic's parser
DEEP = 150  # pydantic's parser ends at 200 levels
LARGE = 1 << 20
MANY_ERRORS = 1000
MOST_TOLD = 3
LONGEST_NAME = 60
LONGEST_TEXT = 200
PYDANTIC_KINDS = frozenset(get_args(core_schema.ErrorType))
UNKNOWN_KEYS = frozenset({"extra_forbidden", "unexpected_keyword_argument"})
VALIDATOR_KINDS = frozenset({"value_error", "assertion_error"})


class NotSerializable(ValueError):
    """A value that its hint allows and JSON does not, at this path; the text has the reason, never the value."""

    def __init__(self, text: str, path: tuple[str | int, ...] = ()) -> None:
        super().__init__(text)
        self.path = path


class NotJson(ValueError):
    """Bytes that are not JSON, or not an object where one is due."""


class Shape:
    """One kind of value, to JSON and back."""

    __slots__ = ("_check", "_dump", "_may_hold_nan", "_read", "_survey", "_verify", "_write")

    def __init__(self, survey: ValueSchema) -> None:
        validator = SchemaValidator(survey.schema, CORE_CONFIG)
        serializer = SchemaSerializer(survey.schema, CORE_CONFIG)
        self._check = validator.validate_python
        self._read = validator.validate_json
        self._write = serializer.to_json
        self._dump = serializer.to_python
        self._survey = survey
        self._verify = survey.verify
        self._may_hold_nan = survey.may_hold_nan

    @property
    def names(self) -> frozenset[str]:
        """The names of fields, which an error may tell: everything else in its path may be somebody's secret."""
        return self._survey.names

    def write(self, value: Any) -> bytes:
        """
        Return the value as compact JSON, after checking it.

        Raises:
            Exception: it does not fit, whatever pydantic, a validator or the value itself raised; see `explain`.

        """
        value = self._check(value)
        try:
            body = self._write(value, warnings=False, by_alias=True, round_trip=True)
        except PydanticSerializationError as error:
            if UNKNOWN not in str(error):
                raise
            raise self._foreign(value) from None
        if self._verify or len(body) > MOST_DIGITS or REPLACEMENT in body:
            self._confirm(value, body)
        return body

    def read(self, body: bytes) -> Any:
        """
        Return the value that this JSON stands for.

        Raises:
            NotJson: a number in it is NaN or infinite.
            Exception: as `write`; `not_json` knows which of them mean that it is no JSON.

        """
        value = self._read(body)
        if self._may_hold_nan and _has_non_finite(body):
            raise NotJson(NOT_FINITE)
        return value

    def _foreign(self, value: Any) -> NotSerializable:
        """Find the part that pydantic knows no JSON for."""
        marked = self._dump(value, mode="json", fallback=lambda part: f"{UNKNOWN}{type(part).__name__}", warnings=False)
        marks = ((path, part) for path, part in _places(marked) if str(part).startswith(UNKNOWN))
        path, mark = next(marks, ((), "a key"))
        return NotSerializable(
            f"{mark.removeprefix(UNKNOWN)} is not JSON serializable; use a more specific type hint", path
        )

    def _confirm(self, value: Any, body: bytes) -> None:
        """Refuse what was written and would be refused, or be something else, when it is read."""
        if self._may_hold_nan and _has_non_finite(body):
            raise NotSerializable("Input should be a finite number")
        if body.count(b"[") + body.count(b"{") > DEEP:
            _check_depth(body)
        try:
            arrived = self._read(body)
        except ValidationError as error:
            raise NotSerializable(
                f"Its JSON cannot be read back: {explain(error, self.names, 'the value')}; its serializer and validators must fit"
            ) from None
        if arrived != value:
            found = difference(value, arrived)
            if found is not None:
                raise NotSerializable(_loss(found), found.path)


def _loss(found: Difference) -> str:
    """Return the sentence for a value that would arrive as another, and what to do about it."""
    sent, arrived = type(found.sent), type(found.arrived)
    if _is_no_text(found.sent):
        return NO_TEXT
    if found.are_keys and sent is not arrived:
        return f"a key of type {sent.__name__} would arrive as {arrived.__name__}; use a more specific type hint"
    if found.path and str(found.path[-1]).startswith("_"):
        return "a private attribute is not sent; use a field"
    if sent is arrived:
        return f"{'a key' if found.are_keys else 'it'} would arrive as another {sent.__name__}: {CHANGED_AGAIN}"
    hint = "a more specific type hint"
    if issubclass(sent, arrived):
        hint = f"{sent.__name__} or a tagged union (pydantic's Discriminator) as its hint"
    return f"{sent.__name__} would arrive as {arrived.__name__}; use {hint}"


def not_json(error: Exception, body: bytes) -> str | None:
    """Return what makes a body that could not be read no JSON object, or `None` where it is one and its values do not fit."""
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


def explain(error: Exception, names: AbstractSet[str], value_name: str | None = None) -> str:
    """
    Return what was wrong as one sentence without its end, and without any of the values.

    `value_name` is what the whole value is called; without it, it is an object whose keys are parameters.
    """
    if isinstance(error, ValidationError):
        count = error.error_count()
        if count > MANY_ERRORS:
            return f"{count} values in it do not fit"
        told = [_problem(details, names, value_name) for details in error.errors(include_url=False)[:MOST_TOLD]]
        return "; ".join(told) + (f"; and {count - MOST_TOLD} more" if count > MOST_TOLD else "")
    steps = _steps(error.path, names) if isinstance(error, NotSerializable) else ""
    return f"{value_name or 'a value'}{steps}: {_why(error)}"


def _problem(details: ErrorDetails, names: AbstractSet[str], value_name: str | None) -> str:
    path = details["loc"]
    where = value_name
    if where is None:
        if not path:
            return f"the arguments: {_message(details)}"
        name = _short(path[0])
        if len(path) == 1 and details["type"] == "missing":
            return f"parameter {name} is missing"
        if len(path) == 1 and details["type"] == "extra_forbidden":
            return f"there is no parameter {name}"
        where, path = f"parameter {name}", path[1:]
    if path and details["type"] in UNKNOWN_KEYS:
        # The sender made a mistake in it, and finds it by nothing else.
        return f"{where}{_steps(path[:-1], names)}: There is no field {_short(path[-1])}"
    return f"{where}{_steps(path, names)}: {_message(details)}"


def _steps(path: Iterable[str | int], names: AbstractSet[str]) -> str:
    """Return the way to a part, without the keys of a user's dict."""
    steps = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" if step in names else "" for step in path)
    return f"{' at ' if steps else ''}{steps.removeprefix('.')}"


def _message(details: ErrorDetails) -> str:
    """Return pydantic's text; that of a validator of somebody's own only where it does not repeat the value."""
    kind, text = details["type"], details["msg"].rstrip(".")
    if kind == "union_tag_invalid":
        return "Input tag is none of the expected tags"
    if kind in VALIDATOR_KINDS or kind not in PYDANTIC_KINDS:
        value = details["input"]
        if not isinstance(value, str | int | float) or str(value) in text:
            return "Value refused by its validator"
    return _one_line(text)


def _why(error: Exception) -> str:
    """Tell of an error that has no details, as far as its text is known to hold no value."""
    text = str(error)
    if isinstance(error, NotSerializable | NotJson):
        return text
    if isinstance(error, RecursionError) or "Circular reference" in text or "depth exceeded" in text:
        return "It is nested too deep, or in itself"
    if text.startswith("number out of range"):
        return f"An integer has more than {MOST_DIGITS} digits"
    if not isinstance(error, PydanticSerializationError):
        return f"A validator raised {type(error).__name__}"
    if "surrogates not allowed" in text:
        return NO_TEXT
    if "invalid utf-8" in text:
        return "A model has bytes that are not UTF-8, and its model_config does not ask for base64"
    return "It cannot be written as JSON"


def _short(name: object) -> str:
    text = repr(name)
    return text if len(text) <= LONGEST_NAME else f"{text[:LONGEST_NAME]}…"


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_TEXT else f"{line[:LONGEST_TEXT]}…"


def _has_non_finite(body: bytes) -> bool:
    return bool(SUSPECT_NUMBER.search(body)) and any(map(_is_non_finite, _parts(from_json(body))))


def _check_depth(body: bytes) -> None:
    """Leave a level for what the value is wrapped into on its way."""
    try:
        from_json(b"[[%b]]" % body)
    except ValueError:
        raise NotSerializable("It is nested too deep") from None


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Walk over a value of our own, with the way to each part."""
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _places(part, (*path, key))
    else:
        yield path, value


def _parts(value: Any) -> Iterator[Any]:
    """Walk over everything in JSON that holds nothing itself."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting.extend(item)
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
        else:
            yield item


def _is_non_finite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _is_no_text(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return True
    return False
