"""
`amqpworker dead`: list and show dead letters; they stay in their queues.

Decides which queues are read and what is shown of a dead letter.
"""

from __future__ import annotations

import difflib
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amqpworker.cli.dead_letters import reason_text, summary, whole
from amqpworker.cli.output import clipped, console, folded, table, write, write_json
from amqpworker.cli.shared import APP_VARIABLE, AsJson, UrlOption, admin_of, app_of, examples, quiet
from amqpworker.errors import AmqpWorkerError, ConfigError, Unroutable
from amqpworker.log.terminal import printable
from amqpworker.model.dead_letter import DeadLetter

if TYPE_CHECKING:
    from amqpworker.app import App
    from amqpworker.broker.admin import Admin
    from amqpworker.broker.tool_connection import Depth
    from amqpworker.model.message import Delivery

MAX_LIMIT = 100_000
SUFFIX = ".dead"
MAX_POSITIONS = 10
# The rest of a line is for errors, and for ids, which people copy.
WIDTHS = {"when, attempt": 20}
MAX_ERROR_LENGTH = 160

dead_app = typer.Typer(no_args_is_help=True, help="List and show dead letters; they stay in their queues.")

AppArgument = Annotated[
    str | None, typer.Argument(metavar="MODULE:APP", help="The app whose queues are listed; same as --app.")
]
AppChoice = Annotated[
    str | None,
    typer.Option("--app", metavar="MODULE:APP", envvar=APP_VARIABLE, help="The app that has the queues and the URL."),
]
Queues = Annotated[
    list[str] | None, typer.Option("-q", "--queue", metavar="QUEUE", help="Only this queue; repeatable.")
]


@dead_app.command(
    "list",
    epilog=examples(
        "amqpworker dead list --app shop.tasks:app",
        "amqpworker dead list -q emails -q reports --limit 100 --json",
        "amqpworker dead list -q amqpworker.parked",
    ),
)
def list_letters(
    context: typer.Context,
    named: AppArgument = None,
    app: AppChoice = None,
    queue: Queues = None,
    limit: Annotated[int, typer.Option(min=1, max=MAX_LIMIT, metavar="N", help="Dead letters shown per queue.")] = 20,
    url: UrlOption = None,
    as_json: AsJson = False,
) -> None:
    """
    List dead letters, the oldest first.

    Exit codes: 0 listed, also if there are none; 2 a queue could not be read.
    """
    quiet()
    if named is not None and getattr(context.get_parameter_source("app"), "name", "") == "COMMANDLINE":
        raise ConfigError("Use MODULE:APP or --app, not both.")
    found = _app_for_list(app if named is None else named, queue, url)
    listed: list[dict[str, Any]] = []
    with admin_of(found) as admin:
        for name in _names_of(found, queue):
            depth = admin.depth(name)
            if depth is None and queue:
                raise _no_such_queue(found, admin, name)
            letters = [DeadLetter.of(got, name, n) for n, got in enumerate(admin.peek(name, limit), 1)] if depth else []
            if as_json:
                messages = depth.messages if depth else 0
                listed.append({"queue": name, "messages": messages, "letters": [summary(letter) for letter in letters]})
            else:
                show_list(name, depth.messages if depth else None, letters)
    if as_json:
        write_json(listed)


@dead_app.command(
    epilog=examples(
        "amqpworker dead show 0199b3c4-5d6e-7f80-9a1b-2c3d4e5f6071 -q emails",
        "amqpworker dead show 0199b3c4-5d6e-7f80-9a1b-2c3d4e5f6071 -q emails --json",
    )
)
def show(
    letter: Annotated[str, typer.Argument(metavar="ID", help="The message's id; '' for one without an id.")],
    queue: Annotated[
        str, typer.Option("-q", "--queue", metavar="QUEUE", help="Its work queue, or its dead-letter queue.")
    ],
    app: AppChoice = None,
    url: UrlOption = None,
    as_json: AsJson = False,
) -> None:
    """
    Show one dead letter with its headers, body and traceback. Of several with this id it is the oldest.

    Exit codes: 0 shown, 1 there is no such dead letter, 2 the queue could not be read.
    """
    quiet()
    name = dead_name(queue)
    # Only the app's URL counts here, so --url takes precedence over an app from the environment.
    source = app_of(app if url is None else None, url)
    with admin_of(source) as admin:
        try:
            result = _find(admin, name, letter)
        except Unroutable:
            raise _no_such_queue(source, admin, name) from None
        if result.letter is None:
            write(_not_found(letter, name, result, admin.depth(name)))
            raise typer.Exit(1)
    if as_json:
        write_json({**whole(result.letter), "positions": result.positions, "messages": result.messages})
    else:
        write(f"{_position_text(name, result)}\n")
        show_letter(result.letter)


def _no_such_queue(app: App, admin: Admin, name: str) -> ConfigError:
    """Return the error for a queue that does not exist, with what the app or the broker has instead."""
    work_queue = name.removesuffix(SUFFIX)
    known = [*app.plan.queues, app.plan.names.parked]
    if work_queue in app.plan.queues:
        return ConfigError(f"Queue {name!r} does not exist yet: a worker or `amqpworker topology declare` creates it.")
    if near := difflib.get_close_matches(work_queue, [name for name in known if name != work_queue], n=1):
        return ConfigError(f"Queue {name!r} does not exist: did you mean `-q {near[0]}`?")
    with suppress(AmqpWorkerError):  # this user may not read that queue either
        if work_queue != name and admin.depth(work_queue) is not None:
            return ConfigError(
                f"Queue {name!r} does not exist, but queue {work_queue!r} does: another program may have "
                f"declared it. `amqpworker topology declare` creates both."
            )
    return ConfigError(f"Queue {name!r} does not exist: check its name, and the virtual host of the URL.")


def _app_for_list(app: str | None, queues: list[str] | None, url: str | None) -> App:
    if app is None and not queues:
        raise ConfigError("Name an app (MODULE:APP), or queues with -q.")
    # With --url, an app from the environment is ignored rather than refused.
    return app_of(None if url is not None and queues else app, url)


def _names_of(app: App, queues: list[str] | None) -> list[str]:
    if queues:
        return [dead_name(name) for name in queues]
    return [*(name + SUFFIX for name in sorted(app.plan.queues)), app.plan.names.parked]


def dead_name(queue: str) -> str:
    """Return the dead-letter queue of a work queue; a dead-letter or parking queue is returned as it is."""
    return queue if queue.endswith((SUFFIX, ".parked")) else queue + SUFFIX


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The oldest letter with an id, the positions of all that have it, from 1, and how many letters were read."""

    letter: DeadLetter | None
    positions: list[int]
    messages: int


def _find(admin: Admin, queue: str, wanted: str) -> SearchResult:
    """Find letters by their id; not by position, which may have changed since they were listed."""
    messages = 0
    positions: list[int] = []

    def has_id(got: Delivery) -> bool:
        nonlocal messages
        messages += 1
        if (got.properties.message_id or "") != wanted:
            return False
        positions.append(messages)
        return True

    found = admin.peek(queue, 1, has_id)
    letter = DeadLetter.of(found[0], queue, positions[0]) if found else None
    return SearchResult(letter, positions, messages)


def _position_text(queue: str, result: SearchResult) -> str:
    of_all = f"of {result.messages} in queue {printable(queue)!r}"
    if len(result.positions) == 1:
        return f"Dead letter {result.positions[0]} {of_all}"
    positions = ", ".join(map(str, result.positions[:MAX_POSITIONS]))
    more = "" if len(result.positions) <= MAX_POSITIONS else " and more"
    return f"Dead letter {result.positions[0]} {of_all}; {len(result.positions)} have this id: {positions}{more}"


def _not_found(wanted: str, queue: str, result: SearchResult, depth: Depth | None) -> str:
    """Return what was searched, and whether other consumers may hold the letter."""
    missing = f"with the id {printable(wanted)!r}" if wanted else "without an id"
    lines = [f"No dead letter {missing} among the {result.messages} in queue {printable(queue)!r}."]
    if depth is not None and depth.consumers:
        lines.append("Other consumers are reading this queue and may hold it: try again when they have stopped.")
    if wanted.isascii() and wanted.isdigit():
        lines.append("Give the id of a dead letter, not its position in the list.")
    return "\n".join(lines)


def show_list(queue: str, count: int | None, letters: list[DeadLetter]) -> None:
    """Print the letters of a queue as a table of three lines each."""
    if not letters:
        write(f"{printable(queue)}: {'this queue does not exist yet' if count is None else 'no dead letters'}")
        return
    more = f", {len(letters)} shown" if count is not None and count > len(letters) else ""
    title = f"{printable(queue)}: {count} dead {'letter' if count == 1 else 'letters'}{more}"
    shown = table("#", "id, task, error", "when, attempt", title=title, widths=WIDTHS)
    for letter in letters:
        error_type = letter.error_type.rpartition(".")[2]
        error = ": ".join(part for part in (error_type, letter.error or letter.problem) if part)
        reason = ", ".join(part for part in (reason_text(letter), error) if part)
        shown.add_row(
            str(letter.position),
            "\n".join(
                (
                    folded(letter.id) or "(no id)",
                    folded(letter.task) or "(no task)",
                    clipped(reason, MAX_ERROR_LENGTH) or "(no reason)",
                )
            ),
            f"{_in_utc(letter.failed_at) if letter.failed_at else '?'}\nattempt {letter.attempt}",
        )
    console().print(shown)


def _in_utc(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"


def show_letter(letter: DeadLetter) -> None:
    """Print all of a letter."""
    shown = whole(letter)
    facts = table("", "")
    facts.show_header = False
    shown["reason"] = reason_text(letter)
    names = ("id", "task", "queue", "reason", "error_type", "error", "problem", "attempt", "worker", "routing_key")
    for name in names:
        if shown[name]:
            facts.add_row(name.replace("_", " "), printable(str(shown[name]), keep="\n"))
    for name, time in (("first sent", letter.first_sent), ("failed at", letter.failed_at)):
        if time is not None:
            facts.add_row(name, _in_utc(time))
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
