"""
What JSON does to values, found by writing and reading them, since only pydantic knows what pydantic does.

`difference` compares a value with what arrives. A `Trial` tries the classes and unions of a schema at decoration, with
examples and stand-ins: none of the user's code runs for it.
"""

from __future__ import annotations

import dataclasses
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError
from pydantic_core import CoreConfig, SchemaSerializer, SchemaValidator

__all__ = ["LEAVES", "MODELS", "Difference", "Trial", "difference", "fields_of", "is_foreign"]

MODELS = {"model", "dataclass"}
"""Their instances are taken as they are, without a look at their fields."""

LEAVES = {"cls", "config", "default", "expected", "function", "members", "metadata", "serialization"}
"""Keys whose values hold no further nodes of a schema."""

EXAMPLES: tuple[Any, ...] = (
    *(None, True, 0, 1, 0.1, "", "a", "1", "0.1", "true", "1234", "00000000-0000-0000-0000-000000000007"),
    *("2026-01-02", "2026-01-02T00:00:00", "2026-01-02T03:04:05Z", "03:04:05", "P1DT2H", "127.0.0.1", "::1"),
    *("10.0.0.0/8", "http://a.example/", "redis://localhost", "a@b.example", "1+2j"),
)
"""Of each scalar that JSON has, and of each kind of text that pydantic converts to another type."""

OURS = sys.stdlib_module_names | {"pydantic", "pydantic_core"}
OBVIOUS = {"str": "text", "int": "number", "float": "number", "bool": "boolean", "none": "null"}
OBVIOUS |= {"model": "object", "dataclass": "object", "typed-dict": "object", "dict": "object"}
OBVIOUS |= {"list": "array", "set": "array", "frozenset": "array", "tuple": "array"}
ARRAYS = {"list", "set", "frozenset"}
ALIASES = {"validation_alias", "serialization_alias", "serialization_exclude"}
LIMITS = {"pattern", "min_length", "max_length", "gt", "ge", "lt", "le", "multiple_of", "max_digits", "decimal_places"}
LEFT_OUT = {"post_init", "custom_init", "missing", "default_factory", "metadata", "slots", "ref"}
ANY: dict[str, Any] = {"type": "any"}
DEEPEST = 2


class Difference(NamedTuple):
    """The first place where a value differs from what arrives, and what is there: values, or keys of a dict."""

    path: tuple[str | int, ...]
    sent: Any
    arrived: Any
    are_keys: bool = False


def difference(sent: Any, arrived: Any, path: tuple[Any, ...] = ()) -> Difference | None:
    """Return where two values differ; a class that compares by identity is compared by its parts."""
    if sent is arrived or sent == arrived or _is_same_time(sent, arrived):
        return None
    parts, others = _parts(sent), _parts(arrived)
    if parts is None or others is None or not _are_akin(sent, arrived):
        return Difference(path, sent, arrived)
    if len(parts) != len(others) and isinstance(sent, list | tuple | deque):
        return Difference(path, sent, arrived)
    for key in parts.keys() - others.keys():
        return Difference(path, key, next(iter(others.keys() - parts.keys()), None), are_keys=True)
    for key, part in parts.items():
        found = difference(part, others[key], (*path, key))
        if found is not None:
            return found
    return None if len(parts) == len(others) else Difference(path, sent, arrived)


def _are_akin(sent: Any, arrived: Any) -> bool:
    return type(sent) is type(arrived) or any(isinstance(sent, t) and isinstance(arrived, t) for t in (dict, list))


def _is_same_time(sent: Any, arrived: Any) -> bool:
    """In the hour that a clock repeats, a time equals no time of another zone."""
    if not (isinstance(sent, datetime) and isinstance(arrived, datetime)):
        return False
    return sent.utcoffset() == arrived.utcoffset() and sent.replace(tzinfo=None) == arrived.replace(tzinfo=None)


def _parts(value: Any) -> Mapping[Any, Any] | None:
    """Return what a value consists of, `None` if it has no parts."""
    if isinstance(value, BaseModel):
        fields = {name: getattr(value, name, None) for name in type(value).model_fields}
        return fields | (value.__pydantic_extra__ or {}) | (value.__pydantic_private__ or {})
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return value
    if isinstance(value, list | tuple | deque):
        return dict(enumerate(value))
    if getattr(type(value), "__eq__", None) is object.__eq__:
        return {name: part for name, part in getattr(value, "__dict__", {}).items() if "__pydantic" not in name}
    return None


def is_foreign(holder: Mapping[str, Any] | None) -> bool:
    """Return whether a function in a schema is neither pydantic's own nor Python's."""
    function = (holder or {}).get("function")
    module = getattr(getattr(function, "func", function), "__module__", None) or ""
    return function is not None and module.partition(".")[0] not in OURS


class _UndecidedError(Exception):
    """Only the user's code can decide."""


class Trial:
    """The classes and unions of one schema, tried with JSON of their kind."""

    def __init__(self, definitions: Mapping[str, Any], config: CoreConfig) -> None:
        self._definitions = definitions
        self._config = config
        self._stand_ins: dict[type, type] = {}

    def lost_field(self, node: Mapping[str, Any]) -> str | None:
        """Return the first field of a class that is not read as it is written, with the reason and a way out."""
        if node["type"] == "dataclass":
            found = _half_field(node)
            if found is not None:
                return found
        holder = node if node["type"] == "typed-dict" else node["schema"]
        while holder["type"] == "function-after":
            holder = holder["schema"]
        for name, field in fields_of(holder):
            if ALIASES & field.keys() and (lost := self._lost(node.get("config", {}), name, field)):
                return f".{name} {lost}"
        return None

    def _lost(self, config: Any, name: str, field: Mapping[str, Any]) -> str | None:
        tried = {"type": "model-field", "schema": ANY, **{key: field[key] for key in ALIASES & field.keys()}}
        schema: Any = {"type": "model-fields", "fields": {name: tried}}
        schema = {"type": "model", "cls": type("Tried", (), {}), "schema": schema, "config": config}
        instance = schema["cls"]()
        vars(instance).update({name: name, "__pydantic_extra__": None})
        written = SchemaSerializer(schema, self._config).to_python(instance, by_alias=True, round_trip=True)
        if not written:
            return "is not written (exclude=True): use a class without it"
        try:
            if vars(SchemaValidator(schema, self._config).validate_python(written))[name] == name:
                return None
        except (ValidationError, KeyError):
            pass
        return f"is written as {next(iter(written))!r} and not read by that name: use one alias for both, or populate_by_name"

    def mixed_up(self, union: Mapping[str, Any]) -> tuple[str, str] | None:
        """Return the types of a value and of what it can arrive as, `None` if a union's members are distinguished."""
        if self._is_obvious(union):
            return None
        try:
            whole = self._bare(union, 0, inside=False)
            examples = [*EXAMPLES, *self._examples(whole)]
            read, write = SchemaValidator(whole, self._config), SchemaSerializer(whole, self._config)
            members = [SchemaValidator(member, self._config) for member in _choices(whole)]
        except Exception:  # noqa: BLE001 - what cannot be tried is decided when it is sent
            return None
        for member in members:
            for example in examples:
                try:
                    value = member.validate_python(example)
                    body = write.to_json(value, by_alias=True, round_trip=True, warnings=False)
                    arrived = read.validate_json(body)
                except Exception:  # noqa: BLE001, S112 - no value of this member
                    continue
                found = difference(value, arrived)
                if found is not None:
                    return type(found.sent).__name__, type(found.arrived).__name__
        return None

    def _is_obvious(self, union: Mapping[str, Any]) -> bool:
        """Return whether each member has a kind of JSON of its own: trying large models takes milliseconds."""
        members = [self._definitions.get(member.get("schema_ref"), member) for member in _choices(union)]
        kinds = [OBVIOUS.get(member["type"], "") for member in members]
        odd = "mode" in union or any("serialization" in member or member.get("root_model") for member in members)
        return not odd and "" not in kinds and len({*kinds}) == len(kinds)

    def _bare(self, node: Any, depth: int, inside: bool) -> Any:
        """Return a schema with stand-ins for classes and without the user's code, all references followed."""
        if isinstance(node, list | tuple):
            return type(node)(self._bare(part, depth, inside) for part in node)
        if not isinstance(node, dict):
            return node
        kind = node.get("type")
        if not isinstance(kind, str):  # a mapping of names to nodes
            return {name: self._bare(part, depth, inside) for name, part in node.items()}
        if kind == "definition-ref":
            if depth == DEEPEST:
                return ANY
            return self._bare(self._definitions[node["schema_ref"]], depth + 1, inside)
        code = kind.startswith("function-") and is_foreign(node["function"])
        if is_foreign(node.get("serialization")) or (code and "schema" not in node):
            if not inside:
                raise _UndecidedError
            return ANY
        if code:
            return self._bare(node["schema"], depth, inside)
        left_out = LEFT_OUT | LIMITS if inside else LEFT_OUT
        deeper = inside or "fields" in node
        bare = {
            key: part if key in LEAVES else self._bare(part, depth, deeper)
            for key, part in node.items()
            if key not in left_out
        }
        if kind == "default":
            bare.setdefault("default", None)
        if "schema" in node.get("serialization", ()):
            bare["serialization"] |= {"schema": self._bare(node["serialization"]["schema"], depth, deeper)}
        if kind in MODELS:
            bare["cls"] = stand_in = self._stand_in(node["cls"], node.get("fields"))
            stand_in.__pydantic_serializer__ = SchemaSerializer(bare, self._config)
        return bare

    def _stand_in(self, cls: type, fields: Any) -> Any:
        if cls not in self._stand_ins:
            name = cls.__name__
            made = type(name, (), {}) if fields is None else dataclasses.make_dataclass(name, fields, eq=False)
            self._stand_ins[cls] = made
        return self._stand_ins[cls]

    def _examples(self, node: Any) -> Iterator[Any]:
        """Yield JSON that a bare node takes, as Python has it."""
        kind = node["type"]
        if kind == "literal":
            yield from (getattr(value, "value", value) for value in node["expected"])
        elif kind == "enum":
            yield from (member.value for member in node["members"])
        elif kind in {"union", "tagged-union"}:
            for member in _choices(node):
                yield from self._examples(member)
        elif kind in ARRAYS or (kind == "tuple" and "variadic_item_index" in node):
            items = node.get("items_schema", ANY)
            yield []
            yield from ([item] for item in self._examples(items[-1] if isinstance(items, list) else items))
        elif kind == "tuple":
            yield from map(list, self._rows(node["items_schema"]))
        elif kind == "dict":
            yield {}
            keys = (key for key in self._examples(node.get("keys_schema", ANY)) if isinstance(key, str))
            key = next(keys, "")
            yield from ({key: value} for value in self._examples(node.get("values_schema", ANY)))
        elif kind == "named-tuple":
            yield from map(list, self._rows(field["schema"] for _, field in fields_of(node)))
        elif "fields" in node and kind != "dataclass":
            fields = dict(fields_of(node))
            names = [_key(name, field) for name, field in fields.items()]
            for row in self._rows(field["schema"] for field in fields.values()):
                yield dict(zip(names, row, strict=True))
        else:
            inner = next((node[key] for key in ("json_schema", "lax_schema", "schema") if key in node), None)
            yield from self._leaf_examples(node) if inner is None else self._examples(inner)

    def _leaf_examples(self, node: Any) -> Iterator[Any]:
        accepts = SchemaValidator(node, self._config).isinstance_python
        yield from (example for example in EXAMPLES if accepts(example))

    def _rows(self, schemas: Iterable[Any]) -> Iterator[tuple[Any, ...]]:
        columns = [list(self._examples(schema)) for schema in schemas]
        for number in range(max(map(len, columns), default=1) if all(columns) else 0):
            yield tuple(column[number % len(column)] for column in columns)


def fields_of(node: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the fields of an object's node; a dataclass lists mere names, and has them in its arguments' node."""
    fields = node.get("fields", ())
    if isinstance(fields, dict):
        yield from fields.items()
    else:
        yield from ((field["name"], field) for field in fields if isinstance(field, dict))


def _half_field(node: Mapping[str, Any]) -> str | None:
    inner = node["schema"]
    while "schema" in inner:
        inner = inner["schema"]
    fields = dict(fields_of(inner))
    for name, field in fields.items():
        if field.get("init_only") and field["schema"]["type"] != "default":
            return f".{name} is an InitVar, which no instance keeps: use a field"
    forbidden = inner.get("extra_behavior", node.get("config", {}).get("extra_fields_behavior")) == "forbid"
    for name in node["fields"]:
        if forbidden and (name not in fields or not fields[name].get("init", True)):
            return f".{name} is a field(init=False), which is written and not read: use a property"
    return None


def _choices(union: Mapping[str, Any]) -> Iterator[Any]:
    choices = union["choices"]
    for choice in choices.values() if isinstance(choices, dict) else choices:
        yield choice[0] if isinstance(choice, tuple) else choice


def _key(name: str, field: Mapping[str, Any]) -> str:
    alias = field.get("validation_alias", name)
    return alias if isinstance(alias, str) else name
