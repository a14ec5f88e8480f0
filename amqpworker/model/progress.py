"""How far a task has come, as it reports it, and the JSON for that (docs/wire.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeGuard

from pydantic_core import from_json, to_json

from amqpworker.text import cut, encodable

MAX_NOTE = 1000


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
