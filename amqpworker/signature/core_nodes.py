"""
Walks over pydantic-core's schemas: what is in a node, whatever its type.

A node is a dict with a `type`. Only the keys that hold no nodes are listed here, so a new type of node is walked too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

MODELS = {"model", "dataclass"}
"""Their instances are accepted as they are: pydantic does not validate their fields again."""

LEAVES = {"cls", "config", "default", "expected", "function", "members", "metadata", "serialization"}
NOT_FOR_JSON = LEAVES | {"python_schema", "strict_schema", "definitions"}
NOT_USER_CODE = sys.stdlib_module_names | {"pydantic", "pydantic_core"}


def children(node: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the nodes directly below a node that are used for JSON."""
    for key, part in node.items():
        if key not in NOT_FOR_JSON:
            yield from _nodes_in(part)


def _nodes_in(part: Any) -> Iterator[Any]:
    if isinstance(part, dict):
        if isinstance(part.get("type"), str):
            yield part
        else:  # names and their nodes
            for inner in part.values():
                yield from _nodes_in(inner)
    elif isinstance(part, list | tuple):
        for inner in part:
            yield from _nodes_in(inner)


def rebuilt(part: Any, change: Callable[[Any], Any]) -> Any:
    """Return a part of a schema in which each topmost node is what `change` makes of it."""
    if isinstance(part, list | tuple):
        return type(part)(rebuilt(inner, change) for inner in part)
    if not isinstance(part, dict):
        return part
    if isinstance(part.get("type"), str):
        return change(part)
    return {name: rebuilt(inner, change) for name, inner in part.items()}


def rebuilt_below(node: Mapping[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    """Return a copy of a node in which each node directly below is what `change` makes of it."""
    return {key: part if key in LEAVES else rebuilt(part, change) for key, part in node.items()}


def fields_of(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an object's node by name; a dataclass has them in the node of its arguments."""
    fields = node.get("fields", ())
    if isinstance(fields, dict):
        return fields
    return {field["name"]: field for field in fields if isinstance(field, dict)}


def is_user_code(holder: Mapping[str, Any] | None) -> bool:
    """Return whether a node calls a function that is neither pydantic's nor Python's."""
    function = (holder or {}).get("function")
    module = getattr(getattr(function, "func", function), "__module__", None) or ""
    return function is not None and module.partition(".")[0] not in NOT_USER_CODE
