"""
What `amqpworker pending` prints of the messages that wait.

Decides which of many are shown in a table, and how they are printed without keeping a level of the ladder: the reader of the
output may be slow, so it is complete before the first of it is printed.
"""

from __future__ import annotations

import heapq
import json
import shutil
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from tempfile import SpooledTemporaryFile
from typing import Any

from amqpworker.cli.output import clipped, console, folded, plain, table, write, write_json
from amqpworker.log.terminal import printable
from amqpworker.model.headers import time_text
from amqpworker.model.pending_message import PendingMessage

DUE_WIDTH = len("by 2026-12-24 18:00:00Z")
SPOOL_BYTES = 1 << 20


def row(message: PendingMessage) -> dict[str, Any]:
    """Return what a list has of a message, for JSON, with times as headers have them."""
    return {
        "id": message.id,
        "task": message.task,
        "queue": message.queue,
        "due": _time(message.due),
        "due_is_latest": message.is_latest,
        "attempt": message.attempt,
        "first_sent": _time(message.first_sent),
        "expires": _time(message.expires),
        "unknown_since": _time(message.unknown_since),
    }


def whole(message: PendingMessage) -> dict[str, Any]:
    """Return everything of a message, for JSON; a body that is not JSON is text."""
    delivery = message.message
    properties = delivery.properties.present()
    properties.pop("headers", None)
    return {
        **row(message),
        "problem": delivery.problem,
        "properties": plain(properties),
        "headers": plain(delivery.properties.headers or {}),
        "body": _value_of(delivery.body),
    }


def print_array(messages: Iterable[PendingMessage]) -> None:
    """Print messages as an array of JSON, one on each line, in constant memory."""
    with SpooledTemporaryFile(SPOOL_BYTES, "w+", encoding="ascii") as spool:
        separator = "[\n"
        for message in messages:
            spool.write(f"{separator}{json.dumps(row(message))}")
            separator = ",\n"
        spool.write("[]\n" if separator == "[\n" else "\n]\n")
        spool.seek(0)
        shutil.copyfileobj(spool, sys.stdout)


def print_table(messages: Iterable[PendingMessage], most: int) -> int:
    """Print the messages that are due first, `most` of them, if there are any; return how many there are."""
    count = 0

    def counted() -> Iterable[tuple[datetime, int, PendingMessage]]:
        nonlocal count
        for message in messages:
            count += 1
            yield message.due, count, message

    first = heapq.nsmallest(most, counted())
    if not first:
        return 0
    more = f", {len(first)} shown: those that are due first" if count > len(first) else ""
    write(f"{count} pending {'message' if count == 1 else 'messages'}{more}\n")
    names = [f"{folded(message.id) or '(no id)'}\n{folded(message.task) or '(no task)'}" for _, _, message in first]
    # No id is broken for the sake of what is right of it: people copy it.
    longest = max(len(line) for name in names for line in name.splitlines())
    shown = table("due", "id, task", "queue", widths={"due": DUE_WIDTH, "id, task": max(longest, len("id, task"))})
    for (due, _, message), name in zip(first, names, strict=True):
        latest = "by " if message.is_latest else ""
        queue = "\n".join(part for part in (clipped(message.queue, 255), _why(message)) if part)
        shown.add_row(f"{latest}{_in_utc(due)}", name, queue)
    console().print(shown)
    return count


def print_whole(message: PendingMessage) -> None:
    """Print all of a message."""
    everything = whole(message)
    facts = table("", "")
    facts.show_header = False
    for name in ("id", "task", "queue", "problem", "attempt"):
        if everything[name]:
            facts.add_row(name, printable(str(everything[name]), keep="\n"))
    facts.add_row("due by" if message.is_latest else "due", _in_utc(message.due))
    for name in ("first_sent", "expires", "unknown_since"):
        if (moment := getattr(message, name)) is not None:
            facts.add_row(name.replace("_", " "), _in_utc(moment))
    console().print(facts)
    for name in ("properties", "headers", "body"):
        write(f"\n{name}")
        # In ASCII, so that untrusted text cannot act on the terminal.
        write_json(everything[name])


def _why(message: PendingMessage) -> str:
    """Return why a message waits, unless it is a new one."""
    if message.unknown_since is not None:
        return f"no worker knows its task, since {_in_utc(message.unknown_since)}"
    return f"attempt {message.attempt}" if message.attempt > 1 else ""


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else time_text(int(moment.timestamp() * 1000))


def _in_utc(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"


def _value_of(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return plain(body)
