"""
The JSON schemas of what many tasks take and return, with the classes that they share.

Decides what programs in other languages read of a signature; the documents around these schemas are made in `cli`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Annotated, Any, NamedTuple

from pydantic import Field, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode
from pydantic_core import from_json

from amqpworker.signature.schema import holder, schema_of_value, text_of_hint
from amqpworker.signature.serializer import ValueSerializer
from amqpworker.signature.signature import Signature

ARGUMENTS, RESULT = "arguments", "result"
READ, WRITTEN = "-Input", "-Output"
"""What pydantic adds to the name of a class whose schema depends on whether it is read or written."""


class Payload(NamedTuple):
    """The JSON schemas of a task's body and of what it returns."""

    arguments: dict[str, Any]
    result: dict[str, Any]


class Payloads(NamedTuple):
    """The payloads of tasks by name, and the classes that they refer to by theirs."""

    tasks: Mapping[str, Payload]
    classes: Mapping[str, dict[str, Any]]


class _Generator(GenerateJsonSchema):
    """Pydantic's generator, without the title of each field: others would make a class of each."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012 - as pydantic has it

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - as pydantic calls it
        return False


def payloads_of(own: Iterable[Signature], remote: Iterable[Signature], reference: str) -> Payloads:
    """
    Return the schemas of the tasks that this program runs, and of those that another one runs.

    `reference` is how a schema refers to a class, such as `#/$defs/{model}`. What is sent to us is described as widely as we
    read it, what we send as we write it. A hint without a JSON schema is one that any value fits, described by its text.
    """
    inputs: list[tuple[tuple[str, str], JsonSchemaMode, Any]] = []
    signatures = [*own]
    ways: list[tuple[JsonSchemaMode, JsonSchemaMode]] = [("validation", "serialization")] * len(signatures)
    signatures += remote
    ways += [("serialization", "validation")] * (len(signatures) - len(ways))
    for each, (sent, returned) in zip(signatures, ways, strict=True):
        inputs.append(((each.name, ARGUMENTS), sent, _core_schema(each.hints, each.optional, sent)))
        inputs.append(((each.name, RESULT), returned, _core_schema({RESULT: each.returns}, frozenset(), returned)))
    made, classes = _Generator(ref_template=reference).generate_definitions(inputs)
    names = _names_of_one_meaning(classes, reference)
    references = _references(names, reference)
    schemas = {key: _renamed(schema, references) for (key, _), schema in made.items()}
    tasks = {
        each.name: Payload(
            _with_defaults(schemas[each.name, ARGUMENTS], each), schemas[each.name, RESULT]["properties"][RESULT]
        )
        for each in signatures
    }
    found = {str(name): _renamed(schema, references) for name, schema in classes.items()}
    return Payloads(tasks, {names.get(name, name): schema for name, schema in found.items()})


def _names_of_one_meaning(classes: Mapping[Any, Any], reference: str) -> dict[str, str]:
    """
    Return a shorter name, by each of its two, for a class that has the same schema where it is read and where it is written.

    Pydantic keeps both of a class that refers to itself, and of those that refer to it.
    """
    stems = {name.removesuffix(READ) for name in classes if name.endswith(READ)}
    stems = {stem for stem in stems if stem + WRITTEN in classes and stem not in classes}
    while True:
        names = {stem + way: stem for stem in stems for way in (READ, WRITTEN)}
        renamed = {name: _renamed(classes[name], _references(names, reference)) for name in names}
        differing = {stem for stem in stems if renamed[stem + READ] != renamed[stem + WRITTEN]}
        if not differing:
            return names
        stems -= differing


def _references(names: Mapping[str, str], reference: str) -> dict[str, str]:
    return {reference.format(model=old): reference.format(model=new) for old, new in names.items()}


def _renamed(schema: Any, references: Mapping[str, str]) -> Any:
    if isinstance(schema, dict):
        return {key: _renamed(part, references) for key, part in schema.items()}
    if isinstance(schema, list):
        return [_renamed(part, references) for part in schema]
    return references.get(schema, schema) if isinstance(schema, str) else schema


def _core_schema(hints: Mapping[str, Any], optional: Iterable[str], mode: JsonSchemaMode) -> Any:
    """Return pydantic's schema of an object with these keys, which is never shared, so that it has no name."""
    usable = {name: hint if _has_json_schema(hint, mode) else _anything(hint) for name, hint in hints.items()}
    return _without_name(TypeAdapter(holder(usable, frozenset(optional))).core_schema)


def _has_json_schema(hint: Any, mode: JsonSchemaMode) -> bool:
    try:
        TypeAdapter(holder({RESULT: hint}, frozenset())).json_schema(schema_generator=_Generator, mode=mode)
    except Exception:  # noqa: BLE001 - as a validator or a class of the user's may raise anything
        return False
    return True


def _anything(hint: Any) -> Any:
    return Annotated[Any, Field(description=f"{text_of_hint(hint)}, for which there is no JSON schema")]


def _without_name(schema: Any) -> Any:
    if schema["type"] == "definitions":
        return {**schema, "schema": _without_name(schema["schema"])}
    return {name: part for name, part in schema.items() if name != "ref"}


def _with_defaults(schema: dict[str, Any], signature: Signature) -> dict[str, Any]:
    """Add the defaults of parameters, which pydantic's schema does not have, as far as JSON has them."""
    properties = dict(schema.get("properties", {}))
    for name, default in signature.defaults.items():
        hint = signature.hints[name]
        with suppress(Exception):  # a default need not fit its hint
            written = ValueSerializer(schema_of_value(hint, name, signature.name)).write(default)
            properties[name] = {**properties[name], "default": from_json(written)}
    return {key: part for key, part in schema.items() if key != "title"} | {"properties": properties}
