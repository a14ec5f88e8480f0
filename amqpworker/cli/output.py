"""
What commands print: tables, JSON, lines.

Decides that only terminals get colours, and how values that JSON does not have are written in it.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from amqpworker.log.terminal import printable
from amqpworker.model.headers import time_text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

NO_WIDTHS: Mapping[str, int] = {}
ID_WIDTH = 36
"""A UUID, which people copy, is on one line."""


def console(*, stderr: bool = False) -> Console:
    """Return a console that prints text as it is; without a terminal it has 80 columns and no colours."""
    # Loaded only by commands that print tables.
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=False)


def table(*columns: str, title: str = "", widths: Mapping[str, int] = NO_WIDTHS) -> Table:
    """Return an empty table; long words are folded, never cut, except in columns that have a width."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(
        box=box.SIMPLE_HEAD,
        title=Text(title, style="bold") if title else None,
        title_justify="left",
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
    for column in columns:
        made.add_column(Text(column), overflow="fold", width=widths.get(column), no_wrap=column in widths)
    return made


def clipped(text: str, max_length: int = 80) -> str:
    """Return text for a cell: one printable line of at most this length."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= max_length else f"{line[: max_length - 1]}…"


def folded(text: str) -> str:
    """Return an id or a task's name for its cell, on several lines if it is long."""
    line = clipped(text, 255)
    return "\n".join(line[begin : begin + ID_WIDTH] for begin in range(0, len(line), ID_WIDTH))


def write(text: str) -> None:
    """Print a line."""
    sys.stdout.write(text + "\n")


def write_json(value: Any) -> None:
    """Print a value as JSON in ASCII, indented."""
    write(json.dumps(plain(value), indent=2))


def plain(value: Any) -> Any:
    """Return a value in the types of JSON: bytes as text with escapes, times as headers have them, other numbers as text."""
    match value:
        case None | bool() | str():
            return value
        case int():
            return int(value)
        case float():
            return value if math.isfinite(value) else str(value)
        case bytes() | bytearray():
            return bytes(value).decode("utf-8", "backslashreplace")
        case datetime():
            return time_text(round(value.timestamp() * 1000))
        case Decimal():
            return str(value)
        case dict():
            return {str(plain(name)): plain(held) for name, held in value.items()}
        case list() | tuple():
            return [plain(held) for held in value]
    return str(value)
