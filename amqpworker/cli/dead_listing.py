"""
Tables of dead letters: groups, letters, and all of one letter.

Decides what of a letter is shown, in 80 columns; texts of letters never act on the terminal.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from amqpworker.cli.dead_letters import reason_in_words, reason_text, whole
from amqpworker.cli.output import clipped, console, folded, table, write, write_json
from amqpworker.log.terminal import printable
from amqpworker.model.dead_letter import DeadLetter
from amqpworker.model.letter_groups import LetterGroup

# The rest of a line is for errors, and for names, which people copy.
TIME_WIDTH = 20
MAX_ERROR_LENGTH = 160


def show_groups(queue: str, groups: Sequence[LetterGroup], kind: str = "dead letter") -> None:
    """Print the groups of a queue, the largest first."""
    count = sum(group.count for group in groups)
    named = [group for group in groups if not group.is_others]
    in_groups = (
        f"in {counted(len(named), 'group')}" if len(named) == len(groups) else f"in more than {len(named)} groups"
    )
    title = f"{printable(queue)}: {counted(count, kind)} {in_groups}"
    shown = table("count", "task, error, group", "first, last", title=title, widths={"first, last": TIME_WIDTH})
    for group in groups:
        lines = ["others"]
        if not group.is_others:
            reason = reason_in_words(group.reason, group.by_broker)
            error = _error_text(reason, group.error_type, group.error)
            lines = [folded(group.task) or "(no task)", error, group.fingerprint]
        shown.add_row(str(group.count), "\n".join(lines), f"{_time(group.first)}\n{_time(group.last)}")
    console().print(shown)


def counted(count: int, kind: str) -> str:
    """Return `1 group`, or `2 groups`."""
    return f"{count} {kind}{'' if count == 1 else 's'}"


def show_missing(queue: str, exists: bool, kind: str = "dead letter") -> None:
    """Print that there are no letters in a queue."""
    write(f"{printable(queue)}: {f'no {kind}s' if exists else 'this queue does not exist yet'}")


def show_none(queue: str, kind: str = "dead letter") -> None:
    """Print that a queue has letters, but none that was asked for."""
    write(f"{printable(queue)}: {kind}s, but none that was asked for")


def show_letters(queue: str, count: int, letters: Sequence[DeadLetter], kind: str = "dead letter") -> None:
    """Print the letters of a queue as a table of three lines each; `count` is how many there are."""
    more = f", {len(letters)} shown" if count > len(letters) else ""
    title = f"{printable(queue)}: {counted(count, kind)}{more}"
    shown = table("id, task, error", "when, attempt", title=title, widths={"when, attempt": TIME_WIDTH})
    for letter in letters:
        error = _error_text(reason_text(letter), letter.error_type, letter.error or letter.problem)
        lines = (folded(letter.name), folded(letter.task) or "(no task)", error)
        shown.add_row("\n".join(lines), f"{_time(letter.failed_at)}\nattempt {letter.attempt}")
    console().print(shown)


def _error_text(reason: str, error_type: str, error: str) -> str:
    described = ": ".join(part for part in (error_type.rpartition(".")[2], error) if part)
    text = ", ".join(part for part in (reason, described) if part)
    return clipped(text, MAX_ERROR_LENGTH) or "(no reason)"


def _time(time: datetime | None) -> str:
    return "?" if time is None else f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"


def show_letter(letter: DeadLetter) -> None:
    """Print all of a letter."""
    shown = whole(letter)
    facts = table("", "")
    facts.show_header = False
    shown["reason"] = reason_text(letter)
    names = ("name", "task", "queue", "reason", "error_type", "error", "problem", "attempt", "worker", "routing_key")
    for name in names:
        if shown[name]:
            facts.add_row(name.replace("_", " "), printable(str(shown[name]), keep="\n"))
    for name, time in (("first sent", letter.first_sent), ("failed at", letter.failed_at)):
        if time is not None:
            facts.add_row(name, _time(time))
    console().print(facts)
    _section("properties", shown["properties"])
    headers = {name: held for name, held in shown["headers"].items() if held != letter.traceback or not held}
    _section("headers", headers)
    _section("body", shown["body"])
    if letter.traceback:
        write("\ntraceback")
        write(printable(letter.traceback.rstrip(), keep="\n\t"))


def _section(title: str, value: Any) -> None:
    """Print a value as JSON under a title; in ASCII, so that untrusted text cannot act on the terminal."""
    write(f"\n{title}")
    write_json(value)
