"""
What JSON makes of type hints: a pydantic schema of them, and what must be looked at again each time it is used.

Decides which hints can be carried at all, and closes pydantic's gaps as far as a schema can: `Any` takes only what JSON
has, and the first wrong item of a list ends the look at it (a hostile body must not make a million errors).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from types import NoneType
from typing import Any, cast

import typing_extensions
from pydantic import ConfigDict, TypeAdapter
from pydantic.errors import PydanticErrorMixin
from pydantic_core import CoreConfig, CoreSchema, PydanticCustomError, core_schema

from amqpworker.errors import ConfigError
from amqpworker.hints import named

__all__ = ["CORE_CONFIG", "Survey", "survey", "survey_value"]

CONFIG = ConfigDict(
    extra="forbid",
    allow_inf_nan=False,
    ser_json_bytes="base64",
    val_json_bytes="base64",
    ser_json_inf_nan="constants",
    hide_input_in_errors=True,
)
CORE_CONFIG = CoreConfig(
    allow_inf_nan=False,
    ser_json_bytes="base64",
    val_json_bytes="base64",
    ser_json_inf_nan="constants",
    hide_input_in_errors=True,
)
"""`CONFIG` in pydantic-core's words. Models have a configuration of their own, and keep it."""

PLAIN = {"int", "str", "bool", "bytes", "none", "date", "time", "datetime", "timedelta", "uuid", "enum", "literal"}
NUMBERS = {"float", "decimal"}
CONTAINERS = {"list", "tuple", "set", "frozenset", "dict", "nullable", "default", "json-or-python", "lax-or-strict"}
FIELDS = {"typed-dict-field", "model-field", "dataclass-field", "named-tuple-field"}
OBJECTS = {"typed-dict", "model", "model-fields", "dataclass", "dataclass-args", "named-tuple"}
UNIONS = {"union", "tagged-union"}
MODELS = {"model", "dataclass"}
"""Their instances are taken as they are, without a look at their fields."""

REFUSED = {
    "callable": "has a function in its hint, which JSON cannot carry",
    "generator": "has an iterator in its hint, which can be read only once: say list[…] or Sequence[…]",
    "is-subclass": "has a class as its value, which JSON cannot carry",
    "is-instance": "has a class in its hint that pydantic knows no JSON for",
}
NOT_KEYS = {"tuple", "list", "set", "frozenset", "dict", "none", "nullable"} | UNIONS | OBJECTS
KEYS_ARE_TEXT = "there they are text (as keys, members of an Enum have text as their values, or it is an IntEnum)"
STOP_EARLY = {"list", "tuple", "set", "frozenset"}
LEAVES = {"cls", "config", "default", "expected", "function", "members", "metadata", "serialization"}
JSON_SCALARS = frozenset({str, int, bool, NoneType})


@dataclass(frozen=True, slots=True)
class Survey:
    """
    The schema of some hints, and what pydantic does not see for itself.

    `may_hold_nan` where a NaN or an infinity may get in from JSON, `hides_numbers` where one may leave inside a model,
    `lookalikes` where JSON may not tell the members of a union apart, `verify` where something that can be written
    may be unreadable. `names` are the names of fields, which an error may tell.
    """

    schema: CoreSchema
    may_hold_nan: bool
    hides_numbers: bool
    lookalikes: bool
    verify: bool
    names: frozenset[str]


def survey(hints: Mapping[str, Any], optional: AbstractSet[str], task: str) -> Survey:
    """
    Survey an object with these keys, of which the `optional` ones may be missing.

    Raises:
        ConfigError: JSON cannot carry one of them; names it.

    """
    schema = _schema_of(hints, optional, task)
    definitions = _definitions(schema)
    for name, field in _fields(schema).items():
        _check_field(field, definitions, named(task, name))
    return _survey(schema, hints)


def survey_value(hint: Any, what: str, task: str) -> Survey:
    """
    Survey one value, a parameter or the return value (`what`).

    Raises:
        ConfigError: JSON cannot carry it.

    """
    schema = _schema_of({what: hint}, frozenset(), task)
    definitions = _definitions(schema)
    field = _fields(schema)[what]
    _check_field(field, definitions, named(task, what))
    inner = field["schema"]
    if definitions:
        inner = core_schema.definitions_schema(inner, list(definitions.values()))
    return _survey(inner, ())


def _schema_of(hints: Mapping[str, Any], optional: AbstractSet[str], task: str) -> CoreSchema:
    try:
        return _generate(hints, optional)
    except Exception as error:
        for name, hint in hints.items():
            try:
                _generate({name: hint}, frozenset())
            except Exception as found:
                raise ConfigError(f"{named(task, name)} {_why(hint, found)}") from found
        raise ConfigError(f"Task {task!r} has hints that pydantic cannot use together: {error}") from error


def _generate(hints: Mapping[str, Any], optional: AbstractSet[str]) -> CoreSchema:
    make: Any = typing_extensions.TypedDict
    keys: Any = typing_extensions.NotRequired
    holder = make("Arguments", {name: keys[hint] if name in optional else hint for name, hint in hints.items()})
    holder.__pydantic_config__ = CONFIG
    return TypeAdapter(holder).core_schema


def _why(hint: Any, error: Exception) -> str:
    if isinstance(error, PydanticErrorMixin) and error.code == "typed-dict-version":
        return "has a typing.TypedDict in its hint: on Python before 3.12, use typing_extensions.TypedDict."
    if isinstance(error, PydanticErrorMixin) and error.code == "schema-for-unknown-type":
        return f"has a type in its hint ({hint!r}) that pydantic knows no JSON for."
    text = error.message if isinstance(error, PydanticErrorMixin) else str(error)
    return f"has a hint that pydantic cannot use: {text.partition(chr(10))[0]}"


def _definitions(schema: Any) -> dict[str, Any]:
    return {found["ref"]: found for found in schema["definitions"]} if schema["type"] == "definitions" else {}


def _fields(schema: Any) -> dict[str, Any]:
    inner = schema["schema"] if schema["type"] == "definitions" else schema
    return cast("dict[str, Any]", inner["fields"])


def _check_field(field: Any, definitions: Mapping[str, Any], what: str) -> None:
    if "validation_alias" in field or "serialization_alias" in field or field.get("serialization_exclude"):
        raise ConfigError(f"{what} has an alias or an exclusion: a message has every parameter under its own name.")
    for node, _, parent in _nodes(field, definitions):
        kind = node["type"]
        if kind in REFUSED and not (kind == "is-instance" and parent == "chain"):
            raise ConfigError(f"{what} {REFUSED[kind]}.")
        if kind == "literal" and not all(isinstance(value, str | int | None) for value in node["expected"]):
            raise ConfigError(f"{what} has a Literal in its hint that cannot be read from JSON: use text, or the Enum.")
        if kind == "dict" and not _text_key(node.get("keys_schema"), definitions):
            raise ConfigError(f"{what} has a dict in its hint whose keys JSON cannot carry: {KEYS_ARE_TEXT}.")


def _text_key(keys: Any, definitions: Mapping[str, Any]) -> bool:
    while keys is not None and ("schema_ref" in keys or "schema" in keys):
        if keys["type"] in NOT_KEYS:
            break
        keys = definitions[keys["schema_ref"]] if "schema_ref" in keys else keys["schema"]
    if keys is None:
        return True
    if keys["type"] == "literal":
        return all(isinstance(value, str) for value in keys["expected"])
    if keys["type"] == "enum" and "sub_type" not in keys:
        return all(isinstance(member.value, str) for member in keys["members"])
    return keys["type"] not in NOT_KEYS


def _nodes(schema: Any, definitions: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], bool, str]]:
    """Walk over what JSON meets: each node with whether it lies inside a model, and with its parent's type."""
    waiting: list[tuple[Any, bool, str]] = [(schema, False, "")]
    followed: set[tuple[str, bool]] = set()
    while waiting:
        item, owned, parent = waiting.pop()
        if isinstance(item, list | tuple):
            waiting.extend((part, owned, parent) for part in item)
        if not isinstance(item, dict):
            continue
        kind = item.get("type")
        if not isinstance(kind, str):  # a mapping of names to nodes
            waiting.extend((part, owned, parent) for part in item.values())
            continue
        yield item, owned, parent
        owned = owned or kind in MODELS
        if kind == "definition-ref" and (item["schema_ref"], owned) not in followed:
            followed.add((item["schema_ref"], owned))
            waiting.append((definitions.get(item["schema_ref"]), owned, kind))
        skipped = LEAVES | {"python_schema", "strict_schema", "definitions"}
        waiting.extend((part, owned, kind) for key, part in item.items() if key not in skipped)


def _survey(schema: CoreSchema, names: Mapping[str, Any] | tuple[()]) -> Survey:
    may_hold_nan = hides = lookalikes = verify = False
    fields = set(names)
    for node, owned, _ in _nodes(schema, _definitions(schema)):
        kind = node["type"]
        lookalikes |= kind == "union"
        verify |= kind not in PLAIN | NUMBERS | CONTAINERS | FIELDS | {"typed-dict", "definitions"}
        known = kind in PLAIN | CONTAINERS | FIELDS | OBJECTS | UNIONS | {"definitions", "definition-ref"}
        if _is_open(node) or (not known and (owned or kind not in NUMBERS)):
            may_hold_nan = verify = True
            hides |= owned or kind in MODELS
        if kind in OBJECTS:
            fields.update(_names(node))
    return Survey(_tighten(schema), may_hold_nan, hides, lookalikes, verify, frozenset(fields))


def _is_open(node: Mapping[str, Any]) -> bool:
    """Tell whether a node takes or gives more than its type says: fields of any name, members of any type, own code."""
    extra = node.get("extra_behavior") or node.get("config", {}).get("extra_fields_behavior")
    plain = all(isinstance(member.value, str | int) for member in node.get("members", ()))
    return "serialization" in node or extra == "allow" or not plain


def _names(node: Mapping[str, Any]) -> Iterator[str]:
    fields = node.get("fields", ())
    if isinstance(fields, dict):
        yield from fields
        for field in fields.values():
            if isinstance(field.get("validation_alias"), str):
                yield field["validation_alias"]
    else:
        yield from (field if isinstance(field, str) else field["name"] for field in fields)


def _tighten(node: Any) -> Any:
    if isinstance(node, list):
        return [_tighten(part) for part in node]
    if isinstance(node, tuple):
        return tuple(_tighten(part) for part in node)
    if not isinstance(node, dict):
        return node
    kind = node.get("type")
    if not isinstance(kind, str):  # a mapping of names to nodes
        return {name: _tighten(part) for name, part in node.items()}
    if kind in MODELS:
        return node
    if kind == "any" and not node.keys() & {"ref", "serialization"}:
        return _checked(_json_value)
    tight = {key: part if key in LEAVES else _tighten(part) for key, part in node.items()}
    if kind == "dict" and node.get("keys_schema", {}).get("type") == "any":
        tight["keys_schema"] = _checked(_json_key)
    if kind in STOP_EARLY or (kind == "dict" and "fail_fast" in core_schema.DictSchema.__annotations__):
        tight["fail_fast"] = True
    return tight


def _checked(check: Any) -> CoreSchema:
    return core_schema.json_or_python_schema(
        core_schema.any_schema(), core_schema.no_info_plain_validator_function(check)
    )


def _json_key(key: Any) -> str:
    if not isinstance(key, str):
        raise PydanticCustomError("json_key", "A key in JSON is text; use a more specific type hint")
    return key


def _json_value(value: Any) -> Any:
    """Refuse what JSON would turn into something else, at any depth."""
    if type(value) in JSON_SCALARS:
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise PydanticCustomError("finite_number", "Input should be a finite number")
    elif isinstance(value, list | tuple):
        for item in value:
            _json_value(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            _json_key(key)
            _json_value(item)
    elif not isinstance(value, str | int):
        raise PydanticCustomError(
            "json_value",
            "{kind} is not JSON serializable; use a more specific type hint",
            {"kind": type(value).__name__},
        )
    return value
