"""What is assumed of pydantic-core's schemas; a new release that has more than this must be sorted in here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import pytest
from pydantic_core import core_schema

from amqpworker.signature.core_nodes import LEAVES, NOT_FOR_JSON
from amqpworker.signature.schema import PLAIN, PREPARING, REFUSED

NEVER_IN_A_HINT = {"invalid", "missing-sentinel", "ellipsis", "arguments-v3"}
READ_BACK = {
    *("any", "fraction", "time", "datetime", "complex", "url", "multi-host-url", "json", "chain", "custom-error"),
    *("deque", "frozendict", "ordered-dict", "counter", "named-tuple", "arguments", "call", "definition-ref"),
    *("function-after", "function-plain", "union", "tagged-union"),
    *("model", "model-fields", "model-field", "dataclass", "dataclass-args", "dataclass-field"),
    *("named-tuple-field", "computed-field"),
}


def schemas() -> Iterator[tuple[str, Any]]:
    for name, made in vars(core_schema).items():
        if name.endswith(("Schema", "Field", "Parameter")) and hasattr(made, "__annotations__"):
            yield name, made


def test_each_node_type_of_pydantic_core_is_plain_or_refused_or_read_back() -> None:
    known = PLAIN | set(REFUSED) | PREPARING | READ_BACK | NEVER_IN_A_HINT
    assert {*get_args(core_schema.CoreSchemaType), *get_args(core_schema.CoreSchemaFieldType)} <= known
    assert not PLAIN & (READ_BACK | set(REFUSED) | PREPARING)


@pytest.mark.parametrize(("name", "made"), list(schemas()))
def test_no_key_that_is_skipped_holds_a_node_for_json(name: str, made: Any) -> None:
    holding = {key for key, hint in made.__annotations__.items() if "CoreSchema" in str(hint)}
    assert not holding & LEAVES
    assert holding & NOT_FOR_JSON <= {"python_schema", "strict_schema", "definitions"}, name
