"""
A cancel of one message: how it is written, and which messages it counts for.

    {"id": "018f…", "at": "2026-11-28T23:59:59.123Z", "until": "2026-12-05T23:59:59.123Z", "force": false}

Decides until when a cancel holds, and which foreign ones are accepted. `routing.cancel_messages` decides how it travels,
`worker.cancels` what a worker does with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json, to_json

from amqpworker.model.headers import FIRST_SENT, REPLAYED, UnusableHeader, read_headers, time_of, time_text
from amqpworker.model.message import Delivery, fits_short_string
from amqpworker.text import encodable

REASON = "cancelled"
"""The reason of a cancelled message in a reply and in a stored result; also the state of a cancel in a result store."""

HOLDS = 7 * 86_400_000
"""Milliseconds for which a cancel holds after the due time of its message."""

STORED_PREFIX = "aw-cancelled:"


class UnusableCancel(ValueError):
    """What was read is not a cancel; the text names what is wrong."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """
    Do not start the message with this `id` that was sent before `at`; it holds `until` then (milliseconds since the epoch).

    If its task runs already, it sees that in `current().cancelled`; with `force` it is ended.
    """

    id: str
    at: int
    until: int
    force: bool = False

    def counts_for(self, known: Mapping[str, int], now: int) -> bool:
        """Return whether it cancels a message with these parsed headers of ours: it was sent, and replayed, before."""
        at = self.at
        return now < self.until and known.get(FIRST_SENT, at - 1) < at and known.get(REPLAYED, at - 1) < at

    def covers(self, delivery: Delivery, now: int) -> bool:
        """Return whether it cancels a delivery; not one whose headers cannot be read."""
        properties = delivery.properties
        if properties.message_id != self.id:
            return False
        try:
            return self.counts_for(read_headers(properties.headers or {}), now)
        except UnusableHeader:
            return False


def holds_until(due: float | None, now: float) -> int:
    """Return until when a cancel holds, in milliseconds, for a message that is `due` then (seconds; None: not known)."""
    return int(max(now, due or now) * 1000) + HOLDS


def merged(one: Cancel, other: Cancel) -> Cancel:
    """Return one cancel that counts for whatever either of two cancels of an id counts for."""
    return Cancel(one.id, max(one.at, other.at), max(one.until, other.until), one.force or other.force)


def stored_id(task_id: str) -> str:
    """Return the id of the row that a cancel of a message has in a result store."""
    return f"{STORED_PREFIX}{task_id}"


def encode_cancel(cancel: Cancel) -> bytes:
    """Return a cancel as JSON."""
    return to_json(
        {
            "id": encodable(cancel.id),
            "at": time_text(cancel.at),
            "until": time_text(cancel.until),
            "force": cancel.force,
        }
    )


def decode_cancel(data: bytes) -> Cancel:
    """Read a cancel, which any program may have written; raises UnusableCancel if it does not follow the contract."""
    try:
        fields: Any = from_json(data)
    except ValueError as error:
        raise UnusableCancel(f"it is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise UnusableCancel("it is not an object")
    task_id, at, force = fields.get("id"), _time(fields, "at"), fields.get("force", False)
    if not fits_short_string(task_id):
        raise UnusableCancel(f"its id must be a string of 1 to 255 bytes, got {task_id!r:.60}")
    if not isinstance(force, bool):
        raise UnusableCancel(f"its force must be true or false, got {force!r:.60}")
    return Cancel(task_id, at, at + HOLDS if fields.get("until") is None else _time(fields, "until"), force)


def _time(fields: Mapping[str, Any], name: str) -> int:
    value = fields.get(name)
    found = None if isinstance(value, bool) else time_of(value)
    if found is None:
        raise UnusableCancel(f"its {name!r} must be a time with a zone, got {value!r:.60}")
    return found
