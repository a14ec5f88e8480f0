"""
What is paused, the changes of it, and the entries of the stream that all worker processes read (docs/wire.md).

An entry has all of what is paused after its change, and the offset of the entry that its writer had read last. If another entry
was written in between, it is `late`: it lacks that one's change. Then its change alone counts, and its writer repairs that by an
entry without a change.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

Kind: TypeAlias = Literal["queue", "task"]
Action: TypeAlias = Literal["pause", "resume"]

# A reader that subscribes again gets the last chunk once more, which has fewer entries than this.
MAX_KNOWN = 1000


@dataclass(frozen=True, slots=True)
class Change:
    """A queue or task that is paused or resumed, and when: a time as messages have it."""

    action: Action
    kind: Kind
    name: str
    at: str


@dataclass(frozen=True, slots=True)
class Paused:
    """The queues and tasks that are paused, each with the time since when."""

    queues: Mapping[str, str] = field(default_factory=dict)
    tasks: Mapping[str, str] = field(default_factory=dict)

    def of(self, kind: Kind) -> Mapping[str, str]:
        """Return the queues or the tasks."""
        return self.queues if kind == "queue" else self.tasks

    def after(self, change: Change) -> Paused:
        """Return what is paused after a change; what is paused already keeps its time."""
        names = dict(self.of(change.kind))
        if change.action == "pause":
            names.setdefault(change.name, change.at)
        else:
            names.pop(change.name, None)
        return Paused(names, self.tasks) if change.kind == "queue" else Paused(self.queues, names)


@dataclass(frozen=True, slots=True)
class PauseEntry:
    """
    One entry of the stream.

    `base` is the offset of the entry before it as its writer knew it: -1 if there was none, None in one that was written by hand.
    """

    paused: Paused
    base: int | None
    change: Change | None = None

    def dump(self) -> bytes:
        """Return it as JSON."""
        fields: dict[str, Any] = {
            "queues": dict(self.paused.queues),
            "tasks": dict(self.paused.tasks),
            "base": self.base,
        }
        if (change := self.change) is not None:
            fields["change"] = {"action": change.action, change.kind: change.name, "at": change.at}
        return json.dumps(fields, ensure_ascii=False).encode("utf-8", "surrogatepass")

    @staticmethod
    def load(body: bytes) -> PauseEntry | None:
        """Return the entry with this body, None if it is not one. Unknown fields are ignored."""
        try:
            fields = json.loads(body)
            change = fields.get("change")
            paused = Paused(_names(fields["queues"]), _names(fields["tasks"]))
            base = fields.get("base")
            return PauseEntry(
                paused, base if isinstance(base, int) else None, None if change is None else _change(change)
            )
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None


class PauseLog:
    """What is paused, after the entries of the stream that were read so far."""

    def __init__(self) -> None:
        self.paused = Paused()
        self.offset = -1
        """The offset of the last entry."""
        self.is_complete = True
        """Whether the first entry that was read had all changes before it."""
        self._known: dict[int, str] = {}

    def add(self, offset: int, message_id: str, entry: PauseEntry | None) -> bool:
        """
        Take an entry, None if it cannot be read; return false if it was known already.

        An entry whose offset another one had begins a new stream.
        """
        if self._known.get(offset) == message_id:
            return False
        is_first = not self._known or offset <= self.offset
        if is_first:
            self._known.clear()
        self._known[offset] = message_id
        if len(self._known) > MAX_KNOWN:
            del self._known[next(iter(self._known))]
        self.offset = offset
        if entry is not None:
            self._apply(entry, offset, is_first)
        return True

    def _apply(self, entry: PauseEntry, offset: int, is_first: bool) -> None:
        is_late = entry.base is not None and entry.base < offset - 1
        if is_first or not is_late:
            self.is_complete = not is_late
        if is_first or not is_late:
            self.paused = entry.paused
        elif entry.change is not None:
            self.paused = self.paused.after(entry.change)


def _names(value: Any) -> dict[str, str]:
    if isinstance(value, list):  # written by hand
        value = dict.fromkeys(value, "")
    return {str(name): str(since) for name, since in value.items()}


def _change(fields: Any) -> Change | None:
    kind: Kind = "queue" if "queue" in fields else "task"
    action = fields["action"]
    return Change(action, kind, str(fields[kind]), str(fields.get("at", ""))) if action in get_args(Action) else None
