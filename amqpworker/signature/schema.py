"""
The pydantic schema of type hints, and whether their values must be read back when they are sent.

Decides which hints JSON can carry, and closes pydantic's gaps as far as a schema can: text for bytes is never read as
base64, and validation of a list ends at its first wrong item (a hostile body must not cause a million errors).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, NamedTuple, cast

import typing_extensions
from pydantic import BaseModel, ConfigDict, TypeAdapter
from pydantic.errors import PydanticErrorMixin
from pydantic_core import CoreConfig, CoreSchema, core_schema

from amqpworker.errors import ConfigError
from amqpworker.signature.core_nodes import MODELS, children, fields_of, is_user_code, rebuilt_below
from amqpworker.signature.parameters import named
from amqpworker.signature.round_trip import Trial

CONFIG = ConfigDict(
    extra="forbid",
    allow_inf_nan=False,
    ser_json_bytes="base64",
    val_json_bytes="base64",
    ser_json_inf_nan="constants",
    hide_input_in_errors=True,
)
CORE_CONFIG = cast("CoreConfig", {name: value for name, value in CONFIG.items() if name != "extra"})
"""`CONFIG` in pydantic-core's words. Models have a configuration of their own, and keep it."""

PLAIN = {
    *("int", "float", "decimal", "str", "bool", "bytes", "none", "date", "timedelta", "uuid", "enum", "literal"),
    *("list", "tuple", "set", "frozenset", "dict", "typed-dict", "typed-dict-field", "nullable", "default"),
    *("json-or-python", "lax-or-strict", "definitions"),
}
"""Nodes whose values always arrive equal. What has any other in it, known or not, is read back when it is sent."""

REFUSED = {
    "callable": "has a function in its hint, which JSON cannot carry",
    "generator": "has an iterator in its hint, which can be read only once: use list[…] or Sequence[…]",
    "is-subclass": "has a class as its value, which JSON cannot carry",
    "is-instance": "has a class in its hint for which pydantic has no JSON",
}
PREPARING = {"function-before", "function-wrap"}
FAIL_FAST = {"list", "tuple", "set", "frozenset"}
if "fail_fast" in core_schema.DictSchema.__annotations__:
    FAIL_FAST |= {"dict"}
BY_VALUE_ONLY = Enum._missing_.__func__  # type: ignore[attr-defined]
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


@dataclass(frozen=True, slots=True)
class ValueSchema:
    """
    The schema of some hints, and what pydantic does not see for itself.

    `verify` if a value may arrive as another, not be read at all, or be NaN: only reading what was written shows it.
    `names` are the names of fields, which an error may show, `aliases` older names of keys, each with its present one.
    """

    schema: CoreSchema
    verify: bool
    names: frozenset[str]
    aliases: Mapping[str, str] = field(default_factory=dict)


class Found(NamedTuple):
    """
    A node of a schema that is used for JSON.

    `custom` if the user's code writes it, `prepared` if such code may change what it reads; `place` is the field that it
    lies in.
    """

    node: Any
    custom: bool = False
    prepared: bool = False
    place: str = ""


def schema_of(hints: Mapping[str, Any], optional: AbstractSet[str], task: str) -> ValueSchema:
    """Return the schema of an object with these keys, some of them `optional`; raises ConfigError if JSON cannot carry one."""
    schema, fields, _ = _checked(hints, optional, task)
    older: dict[str, str] = {}
    for name, key in fields.items():
        for alias in _older_names(name, key) or ():
            if alias in fields or older.setdefault(alias, name) != name:
                raise ConfigError(
                    f"{named(task, name)} has the older name {alias!r}, which another parameter has, too."
                )
    return replace(_value_schema(schema, {**hints, **older}), aliases=older)


def schema_of_value(hint: Any, what: str, task: str) -> ValueSchema:
    """Return the schema of one value, a parameter or the return value (`what`); raises ConfigError likewise."""
    _, fields, definitions = _checked({what: hint}, frozenset(), task)
    inner = fields[what]["schema"]
    if definitions:
        inner = core_schema.definitions_schema(inner, list(definitions.values()))
    return _value_schema(inner, ())


def _checked(hints: Mapping[str, Any], optional: AbstractSet[str], task: str) -> tuple[CoreSchema, Any, dict[str, Any]]:
    """Return a checked schema, the fields in it and the definitions that they refer to."""
    try:
        schema = _generate(hints, optional)
    except Exception as error:
        for name, hint in hints.items():
            try:
                _generate({name: hint}, frozenset())
            except Exception as found:
                raise ConfigError(f"{named(task, name)} {_why(hint, found)}") from found
        raise ConfigError(f"Task {task!r} has hints that pydantic cannot use together: {error}") from error
    definitions = _definitions(schema)
    fields = (schema["schema"] if definitions else schema)["fields"]
    for name, key in fields.items():
        what = named(task, name)
        if key.keys() & {"serialization_alias", "serialization_exclude"} or _older_names(name, key) is None:
            raise ConfigError(
                f"{what} has an alias or an exclusion: a message has each parameter under its own name. Older names of a "
                f"parameter are named after it: validation_alias=AliasChoices({name!r}, 'older_name')."
            )
        trial = Trial(definitions, CORE_CONFIG)
        for node in _walk(key, definitions):
            if problem := _problem(node, trial):
                raise ConfigError(f"{what}{problem}.")
    return schema, fields, definitions


def _older_names(name: str, key: Any) -> list[str] | None:
    """Return by which names a key is read after its own; `None` if its own is not the first, or if one is a path."""
    alias = key.get("validation_alias", name)
    paths = [[alias]] if isinstance(alias, str) else alias
    names: list[Any] = [path[0] if isinstance(path, list) and len(path) == 1 else None for path in paths]
    return None if None in names or names[:1] != [name] else names[1:]


def json_schema_of(name: str, hint: Any) -> dict[str, Any]:
    """Return the JSON schema of a parameter or of a result; one that only names its hint, if pydantic has none for it."""
    try:
        schema = TypeAdapter(holder({name: hint}, frozenset())).json_schema()
        found: dict[str, Any] = schema["properties"][name]
    except Exception:  # noqa: BLE001 - as a validator or a class of the user's may raise anything
        return {"hint": text_of_hint(hint)}
    return found | ({"$defs": schema["$defs"]} if "$defs" in schema else {})


def text_of_hint(hint: Any) -> str:
    """Return a type hint as text, the same in each process."""
    return _ADDRESS.sub("", repr(hint))


def _generate(hints: Mapping[str, Any], optional: AbstractSet[str]) -> CoreSchema:
    return TypeAdapter(holder(hints, optional)).core_schema


def holder(hints: Mapping[str, Any], optional: AbstractSet[str]) -> Any:
    """Return a class that has these hints, and is written and read as messages are."""
    make: Any = typing_extensions.TypedDict
    keys: Any = typing_extensions.NotRequired
    holder = make("Arguments", {name: keys[hint] if name in optional else hint for name, hint in hints.items()})
    holder.__pydantic_config__ = CONFIG
    return holder


def _why(hint: Any, error: Exception) -> str:
    if isinstance(error, PydanticErrorMixin) and error.code == "typed-dict-version":
        return "has a typing.TypedDict in its hint: on Python before 3.12, use typing_extensions.TypedDict."
    if isinstance(error, PydanticErrorMixin) and error.code == "schema-for-unknown-type":
        return f"has a type in its hint ({hint!r}) for which pydantic has no JSON."
    text = error.message if isinstance(error, PydanticErrorMixin) else str(error)
    return f"has a hint that pydantic cannot use: {text.partition(chr(10))[0]}"


def _definitions(schema: Any) -> dict[str, Any]:
    return {found["ref"]: found for found in schema["definitions"]} if schema["type"] == "definitions" else {}


def _problem(found: Found, trial: Trial) -> str | None:
    """Return why JSON cannot carry a node, after the name of the parameter."""
    node, kind, place = found.node, found.node["type"], found.place
    read_by_pydantic = not (found.custom or found.prepared)
    if kind in REFUSED:
        return f"{place} {REFUSED[kind]}"
    if kind == "literal" and not all(isinstance(value, str | int | None) for value in node["expected"]):
        return f"{place} has a Literal in its hint that cannot be read from JSON: use text, or the Enum"
    if kind == "dict" and not trial.can_be_keys(node.get("keys_schema", {"type": "any"})):
        return (
            f"{place} has a dict in its hint whose keys JSON cannot carry: there they are text (as keys, members of an "
            "Enum have text as their values, or it is an IntEnum)"
        )
    if kind == "model" and node["cls"] is BaseModel and not found.prepared:
        return f"{place} has BaseModel itself in its hint, which has no fields: name the model"
    if kind == "enum" and read_by_pydantic and not _is_readable(node["cls"]):
        return f"{place} has an Enum in its hint whose values JSON cannot carry ({_title(node)}): use text as values"
    return None if found.custom else _loss(found, trial)


def _is_readable(cls: type[Enum]) -> bool:
    """Return whether any member of an Enum can be read from JSON; a class with a `_missing_` finds its members itself."""
    if getattr(cls._missing_, "__func__", None) is not BY_VALUE_ONLY:
        return True
    return any(isinstance(member.value, str | int | float | None) for member in cls)


def _loss(found: Found, trial: Trial) -> str | None:
    """Return what of a node is not read as it is written."""
    node, kind, place = found.node, found.node["type"], found.place
    if _is_secret(node.get("serialization", {}).get("function")):
        return f"{place} would be sent as asterisks: send the name of a secret, never the secret itself"
    if kind in MODELS | {"typed-dict"} and (lost := _lost_field(node, trial)):
        return f" at {_title(node)}.{lost}"
    if kind == "union" and (ambiguity := trial.ambiguity(node)):
        return (
            f"{place} has a union in its hint whose members JSON does not distinguish: {ambiguity[0]} can arrive as "
            f"{ambiguity[1]}. Use a tagged union (pydantic's Discriminator) or a narrower hint"
        )
    return None


def _is_secret(function: Any) -> bool:
    return getattr(function, "__module__", "") == "pydantic.types" and "secret" in function.__qualname__.lower()


def _lost_field(node: Any, trial: Trial) -> str | None:
    """Return the first field of a class that is not read as it is written, with the reason and what to do."""
    holder = node
    while "schema" in holder and not fields_of(holder) and holder["type"] not in PREPARING:
        holder = holder["schema"]
    fields, config = fields_of(holder), node.get("config", {})
    if node["type"] == "dataclass":
        forbidden = holder.get("extra_behavior", config.get("extra_fields_behavior")) == "forbid"
        for name, field in fields.items():
            if field.get("init_only") and field["schema"]["type"] != "default":
                return f"{name} is an InitVar, which no instance keeps: use a field"
        for name in node["fields"]:
            if forbidden and not fields.get(name, {"init": False}).get("init", True):
                return f"{name} is a field(init=False), which is written and not read: use a property"
    for name, field in fields.items():
        if field.get("serialization_exclude"):
            return f"{name} is not written (exclude=True): use a class without it"
        written = field.get("serialization_alias", name)
        if not trial.is_read_as(written, name, field, config):
            return f"{name} is written as {written!r} and not read by that name: use one alias for both, or populate_by_name"
    return None


def _title(node: Mapping[str, Any]) -> str:
    names = (node.get("model_name"), node.get("dataclass_name"), node.get("cls_name"))
    return next(filter(None, names), getattr(node.get("cls"), "__name__", ""))


def _walk(schema: Any, definitions: Mapping[str, Any]) -> Iterator[Found]:
    """Walk over the nodes that are used for JSON, each definition once for each way to read and write it."""
    waiting = [Found(schema)]
    followed: set[tuple[Any, ...]] = set()
    while waiting:
        found = waiting.pop()
        node, kind = found.node, found.node["type"]
        found = found._replace(custom=found.custom or is_user_code(node.get("serialization")))
        yield found
        below = found._replace(prepared=found.prepared or (kind in PREPARING and is_user_code(node)))
        if kind == "definition-ref":
            way = (node["schema_ref"], below.custom, below.prepared)
            if way not in followed:
                followed.add(way)
                waiting.append(below._replace(node=definitions[node["schema_ref"]]))
        elif fields := fields_of(node):
            for name, field in fields.items():
                waiting.append(below._replace(node=field, place=f" at {_title(node)}.{name}"))
        else:
            waiting.extend(below._replace(node=part) for part in children(node))


def _value_schema(schema: CoreSchema, names: Iterable[str]) -> ValueSchema:
    verify = False
    fields = set(names)
    for node, *_ in _walk(schema, _definitions(schema)):
        verify |= node["type"] not in PLAIN or _is_open(node)
        fields |= _names(node)
    return ValueSchema(_tightened(schema), verify, frozenset(fields))


def _is_open(node: Mapping[str, Any]) -> bool:
    """Return whether a node takes or returns more than its type shows: any field, members of any type, other code."""
    plain = all(isinstance(member.value, str | int) for member in node.get("members", ()))
    return "serialization" in node or node.get("extra_behavior") == "allow" or not plain


def _names(node: Mapping[str, Any]) -> set[str]:
    fields = fields_of(node)
    aliases = {field["validation_alias"] for field in fields.values() if isinstance(field.get("validation_alias"), str)}
    return {*fields, *aliases, *getattr(node.get("cls"), "__private_attributes__", ())}


def _tightened(node: Any) -> Any:
    kind = node["type"]
    if kind == "model":  # it has a configuration of its own
        return node
    tight = rebuilt_below(node, _tightened)
    if kind == "bytes":
        lax = core_schema.no_info_before_validator_function(_as_bytes, cast("Any", tight))
        strict = cast("Any", tight | {"strict": True})
        return core_schema.json_or_python_schema(cast("Any", tight), core_schema.lax_or_strict_schema(lax, strict))
    return tight | {"fail_fast": True} if kind in FAIL_FAST else tight


def _as_bytes(value: Any) -> Any:
    """Convert as pydantic does without our configuration, which has it read base64 from Python's text too."""
    return value.encode() if isinstance(value, str) else value
