"""
Values from the command line, and the names of options in errors about them.

Decides how `name=value` is read: as JSON if it is valid JSON, else as text, and as text if the type hint is `str`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, NoReturn, Union, get_args, get_origin

from amqpworker.errors import InvalidArguments

NO_HINTS: Mapping[str, Any] = {}
TEXT, NOTHING = str, type(None)
OPTION_NAMES = {"headers": "header"}
"""Options of a message that have another name on the command line."""


def pairs(items: Iterable[str], kind: str, hints: Mapping[str, Any] = NO_HINTS) -> dict[str, Any]:
    """Read `name=value` items, each value by the hint of its name; raises InvalidArguments for an item of another form."""
    found: dict[str, Any] = {}
    for item in items:
        name, separator, text = item.partition("=")
        if not separator or not name:
            raise InvalidArguments(f"The {kind} {item!r} must have the form name=value.")
        if name in found:
            raise InvalidArguments(f"The {kind} {name!r} is given twice.")
        found[name] = _value_of(text, hints.get(name))
    return found


def _value_of(text: str, hint: Any = None) -> Any:
    """Return the value of a text that is valid JSON, else the text; if the hint is `str`, only a JSON string counts as JSON."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return text
    allowed = set(_alternatives(hint))
    if TEXT not in allowed or not allowed <= {TEXT, NOTHING}:
        return value
    return value if isinstance(value, str) or (value is None and NOTHING in allowed) else text


def _alternatives(hint: Any) -> Iterator[Any]:
    """Yield the types that a hint allows, out of unions, `Annotated`, `NewType` and type aliases."""
    if get_origin(hint) is Annotated:
        yield from _alternatives(get_args(hint)[0])
    elif get_origin(hint) in {Union, UnionType}:
        for member in get_args(hint):
            yield from _alternatives(member)
    elif (target := getattr(hint, "__supertype__", None) or getattr(hint, "__value__", None)) is not None:
        yield from _alternatives(target)
    else:
        yield hint


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)  # NaN and the infinities: they are not JSON, and stay text


def as_cli_options(text: str) -> str:
    """Return an error's text with `--delay` in place of `options(delay=…)`."""
    return re.sub(
        r"options\(((?:\w+=…(?:, )?)+)\)",
        lambda found: ", ".join(
            f"--{OPTION_NAMES.get(name, name.replace('_', '-'))}" for name in re.findall(r"(\w+)=…", found[1])
        ),
        text,
    )
