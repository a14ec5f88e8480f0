"""
What JSON makes of type hints: a pydantic schema of them, and what must be looked at again each time it is used.

Decides which hints can be carried at all, and closes pydantic's gaps as far as a schema can: text for bytes is never
read as base64, and the first wrong item of a list ends the check of it (a hostile body must not make a million errors).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple, cast

import typing_extensions
from pydantic import BaseModel, ConfigDict, TypeAdapter
from pydantic.errors import PydanticErrorMixin
from pydantic_core import CoreConfig, CoreSchema, core_schema

from amqpworker.errors import ConfigError
from amqpworker.signature.parameters import named
from amqpworker.signature.round_trip import LEAVES, MODELS, Trial, fields_of, is_foreign

__all__ = ["CORE_CONFIG", "ValueSchema", "survey", "survey_value"]

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
ZONED = {"datetime", "time"}  # JSON has no room for the seconds of a UTC offset, which clocks before 1950 have
NUMBERS = {"float", "decimal"}
CONTAINERS = {"list", "tuple", "set", "frozenset", "dict", "nullable", "default", "json-or-python", "lax-or-strict"}
FIELDS = {"typed-dict-field", "model-field", "dataclass-field", "named-tuple-field"}
OBJECTS = {"typed-dict", "model", "model-fields", "dataclass", "dataclass-args", "named-tuple"}
UNIONS = {"union", "tagged-union"}
REFUSED = {
    "callable": "has a function in its hint, which JSON cannot carry",
    "generator": "has an iterator in its hint, which can be read only once: say list[…] or Sequence[…]",
    "is-subclass": "has a class as its value, which JSON cannot carry",
    "is-instance": "has a class in its hint that pydantic knows no JSON for",
}
NOT_KEYS = {"tuple", "list", "set", "frozenset", "dict", "none", "nullable"} | UNIONS | OBJECTS
KEYS_ARE_TEXT = "there they are text (as keys, members of an Enum have text as their values, or it is an IntEnum)"
PREPARING = {"function-before", "function-wrap"}
BY_VALUE_ONLY = Enum._missing_.__func__  # type: ignore[attr-defined]
STOP_EARLY = {"list", "tuple", "set", "frozenset"}


@dataclass(frozen=True, slots=True)
class ValueSchema:
    """
    The schema of some hints, and what pydantic does not see for itself.

    `may_hold_nan` if a NaN or an infinity may get in from JSON, `verify` if a value may arrive as another or not be read
    at all: only reading what was written shows it. `names` are the names of fields, which an error may show.
    """

    schema: CoreSchema
    may_hold_nan: bool
    verify: bool
    names: frozenset[str]


class Node(NamedTuple):
    """
    A node of a schema that JSON meets.

    `owned` if it lies inside a model, `custom` if code of the user's writes it, `prepared` if such code may change what it
    reads; `place` is the field that it lies in.
    """

    schema: Any
    owned: bool = False
    custom: bool = False
    prepared: bool = False
    parent: str = ""
    place: str = ""


def survey(hints: Mapping[str, Any], optional: AbstractSet[str], task: str) -> ValueSchema:
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


def survey_value(hint: Any, what: str, task: str) -> ValueSchema:
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
    trial = Trial(definitions, CORE_CONFIG)
    for found in _nodes(field, definitions):
        node, kind, where = found.schema, found.schema["type"], f"{what}{found.place}"
        if kind in REFUSED and not (kind == "is-instance" and found.parent == "chain"):
            raise ConfigError(f"{where} {REFUSED[kind]}.")
        if kind == "literal" and not all(isinstance(value, str | int | None) for value in node["expected"]):
            raise ConfigError(
                f"{where} has a Literal in its hint that cannot be read from JSON: use text, or the Enum."
            )
        if kind == "dict" and not _text_key(node.get("keys_schema"), definitions):
            raise ConfigError(f"{where} has a dict in its hint whose keys JSON cannot carry: {KEYS_ARE_TEXT}.")
        if kind == "model" and node["cls"] is BaseModel and not found.prepared:
            raise ConfigError(f"{where} has BaseModel itself in its hint, which has no fields: name the model.")
        if kind == "enum" and not (found.custom or found.prepared or _is_readable(node["cls"])):
            raise ConfigError(
                f"{where} has an Enum in its hint whose values JSON cannot carry ({_title(node)}): give it text as values."
            )
        if not found.custom:
            _try(trial, found, what)


def _is_readable(cls: type[Enum]) -> bool:
    """Tell whether any member of an Enum can be read from JSON; a class with a `_missing_` finds its members itself."""
    if getattr(cls._missing_, "__func__", None) is not BY_VALUE_ONLY:
        return True
    return any(isinstance(member.value, str | int | float | None) for member in cls)


def _try(trial: Trial, found: Node, what: str) -> None:
    """Refuse what is written as something else than it is read."""
    node, kind, where = found.schema, found.schema["type"], f"{what}{found.place}"
    if _is_secret(node.get("serialization", {}).get("function")):
        raise ConfigError(f"{where} would be sent as asterisks: send the name of a secret, never the secret itself.")
    if kind in MODELS | {"typed-dict"} and (lost := trial.lost_field(node)):
        raise ConfigError(f"{what} at {_title(node)}{lost}.")
    if kind == "union" and (mixed := trial.mixed_up(node)):
        raise ConfigError(
            f"{where} has a union in its hint whose members JSON does not distinguish: {mixed[0]} can arrive as {mixed[1]}."
            " Use a tagged union (pydantic's Discriminator) or a narrower hint."
        )


def _is_secret(function: Any) -> bool:
    return getattr(function, "__module__", "") == "pydantic.types" and "secret" in function.__qualname__.lower()


def _title(node: Mapping[str, Any]) -> str:
    cls = node.get("cls")
    return str(
        node.get("model_name") or node.get("dataclass_name") or node.get("cls_name") or getattr(cls, "__name__", "")
    )


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


def _nodes(schema: Any, definitions: Mapping[str, Any]) -> Iterator[Node]:
    """Walk over what JSON meets."""
    waiting = [Node(schema)]
    followed: set[tuple[Any, ...]] = set()
    while waiting:
        found = waiting.pop()
        item = found.schema
        if isinstance(item, list | tuple):
            waiting.extend(found._replace(schema=part) for part in item)
        if not isinstance(item, dict):
            continue
        kind = item.get("type")
        if not isinstance(kind, str):  # a mapping of names to nodes
            waiting.extend(found._replace(schema=part) for part in item.values())
            continue
        custom = found.custom or is_foreign(item.get("serialization"))
        found = found._replace(custom=custom)
        yield found
        prepared = found.prepared or (kind in PREPARING and is_foreign(item))
        below = Node(None, found.owned or kind in MODELS, custom, prepared, kind, found.place)
        if kind == "definition-ref" and (item["schema_ref"], *below[1:4]) not in followed:
            followed.add((item["schema_ref"], *below[1:4]))
            waiting.append(below._replace(schema=definitions.get(item["schema_ref"])))
        skipped = LEAVES | {"python_schema", "strict_schema", "definitions", "fields"}
        waiting.extend(below._replace(schema=part) for key, part in item.items() if key not in skipped)
        for name, field in fields_of(item):
            waiting.append(below._replace(schema=field, place=f" at {_title(item)}.{name}"))


def _survey(schema: CoreSchema, names: Mapping[str, Any] | tuple[()]) -> ValueSchema:
    may_hold_nan = verify = False
    fields = set(names)
    for found in _nodes(schema, _definitions(schema)):
        node, kind = found.schema, found.schema["type"]
        verify |= kind in ZONED or kind not in PLAIN | NUMBERS | CONTAINERS | FIELDS | {"typed-dict", "definitions"}
        known = kind in PLAIN | CONTAINERS | FIELDS | OBJECTS | UNIONS | {"definitions", "definition-ref"}
        if _is_open(node) or (not known and (found.owned or kind not in NUMBERS)):
            may_hold_nan = verify = True
        if kind in OBJECTS:
            fields.update(_names(node))
    return ValueSchema(_tighten(schema), may_hold_nan, verify, frozenset(fields))


def _is_open(node: Mapping[str, Any]) -> bool:
    """Tell whether a node takes or gives more than its type says: fields of any name, members of any type, own code."""
    extra = node.get("extra_behavior") or node.get("config", {}).get("extra_fields_behavior")
    plain = all(isinstance(member.value, str | int) for member in node.get("members", ()))
    return "serialization" in node or extra == "allow" or not plain


def _names(node: Mapping[str, Any]) -> Iterator[str]:
    yield from getattr(node.get("cls"), "__private_attributes__", ())
    for name, field in fields_of(node):
        yield name
        if isinstance(field.get("validation_alias"), str):
            yield field["validation_alias"]


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
    if kind == "model":  # it has a configuration of its own
        return node
    tight = {key: part if key in LEAVES else _tighten(part) for key, part in node.items()}
    if kind == "bytes":
        lax = core_schema.no_info_before_validator_function(_as_bytes, cast("Any", tight))
        strict = cast("Any", tight | {"strict": True})
        return core_schema.json_or_python_schema(cast("Any", tight), core_schema.lax_or_strict_schema(lax, strict))
    if kind in STOP_EARLY or (kind == "dict" and "fail_fast" in core_schema.DictSchema.__annotations__):
        tight["fail_fast"] = True
    return tight


def _as_bytes(value: Any) -> Any:
    """Convert as pydantic does without our configuration, which has it read base64 from Python's text too."""
    return value.encode() if isinstance(value, str) else value
