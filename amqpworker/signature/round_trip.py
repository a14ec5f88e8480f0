"""
What JSON does to values: found out by writing and reading them, since only pydantic knows what pydantic does.

`difference` compares a value with what arrives. A `Trial` tries the unions and keys of a schema at decoration with
examples, stand-ins for classes and none of the user's code.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic_core import CoreConfig, SchemaSerializer, SchemaValidator

from amqpworker.signature.core_nodes import MODELS, children, fields_of, is_user_code, rebuilt, rebuilt_below

EXAMPLES: tuple[Any, ...] = (
    *(None, True, 0, 1, 0.1, "", "a", "1", "0.1", "true", "1234", "00000000-0000-0000-0000-000000000007"),
    *("2026-01-02", "2026-01-02T00:00:00", "2026-01-02T03:04:05Z", "03:04:05", "P1DT2H", "127.0.0.1", "::1"),
    *("10.0.0.0/8", "http://a.example/", "redis://localhost", "a@b.example", "1+2j"),
)
"""Of each type that JSON has, and of each kind of text that pydantic converts to another type."""

JSON_TYPES = {"str": "text", "int": "number", "float": "number", "bool": "boolean", "none": "null"}
JSON_TYPES |= dict.fromkeys(("model", "dataclass", "typed-dict", "dict"), "object")
JSON_TYPES |= dict.fromkeys(("list", "set", "frozenset", "tuple"), "array")
LIMITS = {"pattern", "min_length", "max_length", "gt", "ge", "lt", "le", "multiple_of", "max_digits", "decimal_places"}
LEFT_OUT = {"post_init", "custom_init", "missing", "default_factory", "metadata", "slots", "ref"}
ANY: dict[str, Any] = {"type": "any"}
MAX_DEPTH = 2


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
    """Compare times; in the hour that a clock repeats, Python's `==` finds no time of another zone equal."""
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


class Tried:
    """A class with the one field that is tried."""


class Undecided(Exception):
    """Only the user's code can decide."""


class Trial:
    """The unions and keys of one schema, written and read with JSON of their kind."""

    def __init__(self, definitions: Mapping[str, Any], config: CoreConfig) -> None:
        self._definitions = definitions
        self._config = config
        self._stand_ins: dict[type, type] = {}

    def ambiguity(self, union: Mapping[str, Any]) -> tuple[str, str] | None:
        """Return the types of a value and of what it can arrive as, `None` if JSON distinguishes a union's members."""
        if self._has_distinct_types(union):
            return None
        try:
            whole = self._bare(union, 0, inside=False)
            examples = [*EXAMPLES, *self._examples(whole)]
            read, write = SchemaValidator(whole, self._config), SchemaSerializer(whole, self._config)
            members = [SchemaValidator(member, self._config) for member in children(whole)]
        except Exception:  # noqa: BLE001 - what cannot be tried is decided when it is sent
            return None
        for member in members:
            for example in examples:
                try:
                    value = member.validate_python(example)
                    body = write.to_json(value, by_alias=True, round_trip=True, warnings=False)
                    arrived = read.validate_json(body)
                except Exception:  # noqa: BLE001, S112 - not a value of this member
                    continue
                found = difference(value, arrived)
                if found is not None:
                    return type(found.sent).__name__, type(found.arrived).__name__
        return None

    def can_be_keys(self, keys: Mapping[str, Any]) -> bool:
        """Return whether the keys of a dict arrive equal."""
        if keys["type"] in {"any", "str"}:
            return True
        try:
            bare = self._bare(keys, 0, inside=False)
            examples = self._examples(bare)
            schema: Any = {"type": "dict", "keys_schema": bare}
            read, write = SchemaValidator(schema, self._config), SchemaSerializer(schema, self._config)
            key = SchemaValidator(bare, self._config).validate_python
        except Exception:  # noqa: BLE001 - what cannot be tried is decided when it is sent
            return True
        try:
            sent = [{key(example): 0} for example in examples]
            return all(read.validate_json(write.to_json(value, warnings=False)) == value for value in sent)
        except Exception:  # noqa: BLE001 - such keys cannot be written or not be read
            return False

    def is_read_as(self, key: str, name: str, field: Mapping[str, Any], config: Any) -> bool:
        """Return whether the field `name` of a class with this configuration is read from this key."""
        if "validation_alias" not in field:
            return key == name
        tried: Any = {"type": "model-field", "schema": ANY, "validation_alias": field["validation_alias"]}
        fields: Any = {"type": "model-fields", "fields": {name: tried}}
        validator = SchemaValidator({"type": "model", "cls": Tried, "schema": fields, "config": config}, self._config)
        return validator.isinstance_python({key: None})

    def _has_distinct_types(self, union: Mapping[str, Any]) -> bool:
        """Return whether each member has a JSON type of its own: trying large models takes milliseconds."""
        members = [self._definitions.get(member.get("schema_ref"), member) for member in children(union)]
        types = {JSON_TYPES.get(member["type"]) for member in members}
        odd = "mode" in union or any("serialization" in member or member.get("root_model") for member in members)
        return not odd and None not in types and len(types) == len(members)

    def _bare(self, node: Any, depth: int, inside: bool) -> Any:
        """Return a schema with stand-ins for classes and without the user's code, all references followed."""
        kind = node["type"]
        if kind == "definition-ref":
            return ANY if depth == MAX_DEPTH else self._bare(self._definitions[node["schema_ref"]], depth + 1, inside)
        code = kind.startswith("function-") and is_user_code(node["function"])
        if is_user_code(node.get("serialization")) or (code and "schema" not in node):
            if not inside:
                raise Undecided
            return ANY
        if code:
            return self._bare(node["schema"], depth, inside)
        left_out = LEFT_OUT | LIMITS if inside else LEFT_OUT
        inside = inside or "fields" in node

        def below(part: Any) -> Any:
            return self._bare(part, depth, inside)

        bare = rebuilt_below({key: part for key, part in node.items() if key not in left_out}, below)
        if kind == "default":
            bare.setdefault("default", None)
        if "schema" in node.get("serialization", ()):
            bare["serialization"] = {**node["serialization"], "schema": rebuilt(node["serialization"]["schema"], below)}
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

    def _examples(self, node: Any) -> list[Any]:
        """Return examples that a bare node accepts, as Python values of JSON's types."""
        accepts = SchemaValidator(node, self._config).isinstance_python
        return [*{repr(example): example for example in self._candidates(node) if accepts(example)}.values()]

    def _candidates(self, node: Any) -> Iterator[Any]:
        """Yield examples of what is in a node, alone and as the items, keys or fields of what the node may be itself."""
        if fields := fields_of(node):
            names = [
                alias if isinstance(alias := field.get("validation_alias"), str) else name
                for name, field in fields.items()
            ]
            needed = {name for name, field in zip(names, fields.values(), strict=True) if _is_required(field)}
            for row in _rows([self._examples(field["schema"]) for field in fields.values()]):
                if node["type"] == "named-tuple":
                    yield list(row)
                    continue
                whole = dict(zip(names, row, strict=True))
                yield whole
                # Pydantic prefers the member of which more fields are given.
                yield {name: value for name, value in whole.items() if name in needed}
            return
        yield from (getattr(value, "value", value) for value in (*node.get("expected", ()), *node.get("members", ())))
        parts = [self._examples(part) for part in children(node)]
        yield from (None, []) if parts else (*EXAMPLES, [])
        if node["type"] == "dict":
            yield {}
        for part in parts:
            yield from part
            yield from ([item] for item in part)
        for row in _rows(parts):
            yield list(row)
            if isinstance(row[0], str):
                yield {row[0]: row[-1]}


def _is_required(field: Mapping[str, Any]) -> bool:
    return bool(field.get("required", True)) and field["schema"]["type"] != "default"


def _rows(columns: Sequence[Sequence[Any]]) -> Iterator[tuple[Any, ...]]:
    """Yield rows with an item of each column, each item at least once."""
    for number in range(max(map(len, columns), default=0) if all(columns) else 0):
        yield tuple(column[number % len(column)] for column in columns)
