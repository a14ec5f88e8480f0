"""How far a task has come, as it reports it, and the JSON for that (docs/wire.md)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeGuard

from pydantic_core import from_json, to_json

from amqpworker.errors import InvalidArguments
from amqpworker.text import cut, encodable

MAX_NOTE = 1000
MAX_WHOLE = 2**53
"""All whole numbers below it are numbers in JSON for any program."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How much is `done`, of how much in `total` (None if that is not known), and a `note` for people."""

    done: float
    total: float | None = None
    note: str = ""

    @property
    def fraction(self) -> float | None:
        """The part that is done, from 0 to 1; None if the total is not known."""
        return min(max(self.done / self.total, 0.0), 1.0) if self.total else None


def progress_of(done: float, total: float | None, note: str) -> Progress:
    """Return a progress; raises InvalidArguments if `done` or `total` is not a finite number, or `note` no text."""
    if not isinstance(note, str):
        raise InvalidArguments(f"progress(note={note!r:.60}): the note must be text.")
    return Progress(_number(done, "done"), None if total is None else _number(total, "total"), note)


def _number(value: object, name: str) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number) or isinstance(value, str | bytes):
        raise InvalidArguments(f"progress({name}={value!r:.60}): it must be a finite number.")
    return int(number) if number.is_integer() and abs(number) < MAX_WHOLE else number


def encode_progress(progress: Progress) -> bytes:
    """Return the JSON of a progress."""
    note = encodable(cut(progress.note, MAX_NOTE))
    return to_json({"done": progress.done, "total": progress.total, "note": note})


def decode_progress(data: bytes) -> Progress | None:
    """Read a progress, which any program may have written; None if there is none, or it is not understood."""
    try:
        found = from_json(data)
    except ValueError:
        return None
    if not isinstance(found, dict):
        return None
    done, total, note = found.get("done"), found.get("total"), found.get("note", "")
    if not _is_number(done) or not (total is None or _is_number(total)) or not isinstance(note, str):
        return None
    return Progress(done, total, note)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
