"""What is paused after changes, also by several writers at the same time, and the entries that have them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpworker.model.paused import Action, Change, Kind, Paused, PauseEntry, PauseLog

NOW = "2026-11-30T08:00:00.000Z"


def change(action: Action, name: str, kind: Kind = "queue") -> Change:
    return Change(action, kind, name, NOW)


class Stream:
    """A stream in memory, and what a reader of all of it knows."""

    def __init__(self) -> None:
        self.entries: list[PauseEntry] = []
        self.reader = PauseLog()

    def append(self, entry: PauseEntry) -> int:
        self.entries.append(PauseEntry.load(entry.dump()) or pytest.fail("it cannot be read"))
        offset = len(self.entries) - 1
        self.reader.add(offset, f"id-{offset}", self.entries[-1])
        return offset

    def read(self, log: PauseLog) -> None:
        for offset in range(log.offset + 1, len(self.entries)):
            log.add(offset, f"id-{offset}", self.entries[offset])


def test_a_change_keeps_the_time_since_when_something_is_paused() -> None:
    once = Paused().after(change("pause", "emails"))
    again = once.after(Change("pause", "queue", "emails", "later"))
    assert once == again == Paused({"emails": NOW})
    assert again.after(change("resume", "emails")) == Paused()
    assert Paused().after(change("resume", "emails")) == Paused()
    assert once.after(change("pause", "emails", "task")) == Paused({"emails": NOW}, {"emails": NOW})


def test_an_entry_survives_as_json() -> None:
    entry = PauseEntry(Paused({"é": NOW}, {"a": NOW}), 7, change("resume", "b", "task"))
    assert PauseEntry.load(entry.dump()) == entry
    assert json.loads(entry.dump())["change"] == {"action": "resume", "task": "b", "at": NOW}
    without = PauseEntry(Paused(), -1)
    assert PauseEntry.load(without.dump()) == without


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"5", b'{"queues": 5, "tasks": {}}', b"\xff", b'{"queues": {}}'])
def test_what_is_not_an_entry_is_none(body: bytes) -> None:
    assert PauseEntry.load(body) is None


def test_an_entry_that_was_written_by_hand_replaces_everything() -> None:
    log = PauseLog()
    log.add(0, "a", PauseEntry(Paused({"x": NOW}), -1, change("pause", "x")))
    log.add(1, "b", PauseEntry.load(b'{"queues": ["emails"], "tasks": []}'))
    assert log.paused == Paused({"emails": ""})


def test_a_late_entry_counts_as_its_change_only() -> None:
    stream = Stream()
    stream.append(PauseEntry(Paused({"a": NOW}), -1, change("pause", "a")))
    stream.append(PauseEntry(Paused({"b": NOW}), -1, change("pause", "b")))
    assert stream.reader.paused == Paused({"a": NOW, "b": NOW})
    late_only = PauseLog()
    late_only.add(1, "id-1", stream.entries[1])
    assert not late_only.is_complete, "its reader must read what is before it"


def test_entries_that_are_read_again_change_nothing_and_a_new_stream_begins_anew() -> None:
    log = PauseLog()
    first = PauseEntry(Paused({"a": NOW}), -1, change("pause", "a"))
    second = PauseEntry(Paused(), 0, change("resume", "a"))
    assert log.add(0, "1", first)
    assert log.add(1, "2", second)
    assert not log.add(0, "1", first)
    assert log.paused == Paused()
    assert log.add(0, "other", PauseEntry(Paused({"c": NOW}), -1, change("pause", "c")))
    assert log.paused == Paused({"c": NOW})


def test_an_unreadable_entry_changes_nothing_but_the_offset() -> None:
    log = PauseLog()
    log.add(0, "1", PauseEntry(Paused({"a": NOW}), -1, change("pause", "a")))
    log.add(1, "2", None)
    assert (log.paused, log.offset) == (Paused({"a": NOW}), 1)


@given(st.lists(st.integers(0, 2), min_size=3, max_size=30))
def test_writers_at_the_same_time_lose_no_change_of_each_other(turns: list[int]) -> None:
    """Each writes once as soon as it has a turn, then reads back and repairs, in any order of the steps."""
    stream = Stream()
    logs = [PauseLog() for _ in range(3)]
    bases: list[int | None] = [None, None, None]
    wrote: list[int | None] = [None, None, None]
    done: set[int] = set()

    def step(writer: int) -> None:
        log = logs[writer]
        if bases[writer] is None:
            stream.read(log)
            bases[writer] = log.offset
        elif wrote[writer] is None:
            own = change("pause", f"q{writer}")
            wrote[writer] = stream.append(PauseEntry(log.paused.after(own), log.offset, own))
        elif wrote[writer] == (bases[writer] or 0) + 1:
            done.add(writer)
        else:
            stream.read(log)
            bases[writer] = log.offset
            wrote[writer] = stream.append(PauseEntry(log.paused, log.offset))

    for turn in turns:
        if turn not in done:
            step(turn)
    for writer in (0, 1, 2):
        while writer not in done:
            step(writer)
    assert set(stream.reader.paused.queues) == {"q0", "q1", "q2"}
    assert set(stream.entries[-1].paused.queues) == {"q0", "q1", "q2"}, "who starts now reads the last only"
