"""
Values from the command line.

Pure. Decides how `name=value` is read: as JSON where that can be, as text elsewhere, and as text wherever a task's type
hint says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, NoReturn, Union, get_args, get_origin

from amqpworker.errors import InvalidArguments

__all__ = ["pairs", "value_of"]

NO_HINTS: Mapping[str, Any] = {}
TEXT, NOTHING = str, type(None)


def pairs(items: Iterable[str], what: str, hints: Mapping[str, Any] = NO_HINTS) -> dict[str, Any]:
    """
    Read `name=value` items, each value by the hint of its name.

    Raises:
        InvalidArguments: an item has no `=`, or a name comes twice.
    """
    found: dict[str, Any] = {}
    for item in items:
        name, separator, text = item.partition("=")
        if not separator or not name:
            raise InvalidArguments(f"The {what} {item!r} is not of the form name=value.")
        if name in found:
            raise InvalidArguments(f"The {what} {name!r} is given twice.")
        found[name] = value_of(text, hints.get(name))
    return found


def value_of(text: str, hint: Any = None) -> Any:
    """Return what the text is as JSON, else the text; where the hint is `str`, only JSON text is taken as JSON."""
    try:
        value = json.loads(text, parse_constant=refuse_constant)
    except (ValueError, RecursionError):
        return text
    wanted = set(alternatives(hint))
    if TEXT not in wanted or not wanted <= {TEXT, NOTHING}:
        return value
    # `null` is what `str | None` has beside text.
    return value if isinstance(value, str) or (value is None and NOTHING in wanted) else text


def alternatives(hint: Any) -> Iterator[Any]:
    """Yield the types that a hint allows, out of unions, `Annotated`, `NewType` and type aliases."""
    if get_origin(hint) is Annotated:
        yield from alternatives(get_args(hint)[0])
    elif get_origin(hint) in {Union, UnionType}:
        for one in get_args(hint):
            yield from alternatives(one)
    elif (meant := getattr(hint, "__supertype__", None) or getattr(hint, "__value__", None)) is not None:
        yield from alternatives(meant)
    else:
        yield hint


def refuse_constant(name: str) -> NoReturn:
    """Refuse NaN and the infinities, which JSON does not have: they stay text."""
    raise ValueError(name)
