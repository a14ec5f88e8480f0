"""
`amqpworker dead`: look at dead letters, and leave them where they are.

Decides which queues are looked into and what of a letter is shown. How a queue is looked into so that its order stays is
`broker.looking`'s.
"""

from __future__ import annotations

import difflib
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amqpworker.cli.dead_letters import DeadLetter, letter_of
from amqpworker.cli.output import clipped, console, folded, printable, table, write, write_json
from amqpworker.cli.shared import APP_VARIABLE, AsJson, UrlOption, admin_of, app_of, quiet
from amqpworker.errors import AmqpWorkerError, ConfigError, Unroutable

if TYPE_CHECKING:
    from amqpworker.app import App
    from amqpworker.broker.admin import Admin, Depth
    from amqpworker.model.message import Delivery

__all__ = ["dead_app"]

FAR = 100_000
SUFFIX = ".dead"
MOST_PLACES = 10
# All the rest of a line is for errors, and for ids, which are there to be copied.
WIDTHS = {"when, attempt": 20}
MOST_ERROR = 160

dead_app = typer.Typer(no_args_is_help=True, help="Look at dead letters; they stay where they are.")

AppArgument = Annotated[
    str | None, typer.Argument(metavar="MODULE:APP", help="The app whose queues are listed; the same as --app.")
]
AppChoice = Annotated[
    str | None,
    typer.Option("--app", metavar="MODULE:APP", envvar=APP_VARIABLE, help="The app with the queues and the URL."),
]
Queues = Annotated[list[str] | None, typer.Option("-q", "--queue", metavar="QUEUE", help="This queue; repeatable.")]


@dead_app.command(
    "list",
    epilog="Examples:\n\n  amqpworker dead list --app shop.tasks:app\n\n"
    "  amqpworker dead list -q emails -q reports --limit 100 --json\n\n"
    "  amqpworker dead list -q amqpworker.parked",
)
def list_letters(
    context: typer.Context,
    named: AppArgument = None,
    app: AppChoice = None,
    queue: Queues = None,
    limit: Annotated[int, typer.Option(min=1, max=FAR, metavar="N", help="Letters shown of each queue.")] = 20,
    url: UrlOption = None,
    as_json: AsJson = False,
) -> None:
    """
    List dead letters, the oldest first.

    Exit codes: 0 listed, also where there is none; 2 a queue could not be looked into.
    """
    quiet()
    if named is not None and getattr(context.get_parameter_source("app"), "name", "") == "COMMANDLINE":
        raise ConfigError("Give MODULE:APP or --app, not both: they mean the same.")
    found = source(app if named is None else named, queue, url)
    listed: list[dict[str, Any]] = []
    with admin_of(found) as admin:
        for name in names_of(found, queue):
            depth = admin.depth(name)
            if depth is None and queue:
                raise no_such_queue(found, admin, name)
            letters = [letter_of(n, name, got) for n, got in enumerate(admin.peek(name, limit), 1)] if depth else []
            if as_json:
                told = [letter.summary() for letter in letters]
                listed.append({"queue": name, "messages": depth.messages if depth else 0, "letters": told})
            else:
                show_list(name, depth.messages if depth else None, letters)
    if as_json:
        write_json(listed)


@dead_app.command(
    epilog="Examples:\n\n  amqpworker dead show 0199b3c4-5d6e-7f80-9a1b-2c3d4e5f6071 -q emails\n\n"
    "  amqpworker dead show 0199b3c4-5d6e-7f80-9a1b-2c3d4e5f6071 -q emails --json"
)
def show(
    letter: Annotated[str, typer.Argument(metavar="ID", help="The message's id; '' for a letter without one.")],
    queue: Annotated[str, typer.Option("-q", "--queue", metavar="QUEUE", help="The queue that it died in.")],
    app: AppChoice = None,
    url: UrlOption = None,
    as_json: AsJson = False,
) -> None:
    """
    Show one dead letter with its headers, body and traceback: the oldest with this id.

    Exit codes: 0 shown, 1 there is no such letter, 2 the queue could not be looked into.
    """
    quiet()
    name = dead_name(queue)
    # An app, which may come from the environment, only tells a URL here.
    told = app_of(app if url is None else None, url)
    with admin_of(told) as admin:
        try:
            found = find(admin, name, letter)
        except Unroutable:
            raise no_such_queue(told, admin, name) from None
        if found.letter is None:
            write(not_found(letter, name, found, admin.depth(name)))
            raise typer.Exit(1)
    if as_json:
        write_json({**found.letter.whole(), "positions": found.positions, "messages": found.messages})
    else:
        write(f"{where_found(name, found)}\n")
        show_letter(found.letter)


def no_such_queue(app: App, admin: Admin, name: str) -> ConfigError:
    """Return the error for a queue that was named and does not exist, with what the app or the broker knows instead."""
    alive = name.removesuffix(SUFFIX)
    known = [*app.plan.queues, app.plan.names.parked]
    if alive in app.plan.queues:
        return ConfigError(f"There is no queue {name!r} yet: a worker or `amqpworker topology declare` makes it.")
    if near := difflib.get_close_matches(alive, [one for one in known if one != alive], n=1):
        return ConfigError(f"There is no queue {name!r}: did you mean `-q {near[0]}`?")
    with suppress(AmqpWorkerError):  # whoever cannot look at that queue either is told the usual
        if alive != name and admin.depth(alive) is not None:
            return ConfigError(
                f"There is no queue {name!r}, though there is a queue {alive!r}: has it been declared by amqpworker, "
                f"`amqpworker topology declare` for one?"
            )
    return ConfigError(f"There is no queue {name!r}: is its name right, and the virtual host of the URL?")


def source(app: str | None, queues: list[str] | None, url: str | None) -> App:
    """Return the app to take URL and queues from."""
    if app is None and not queues:
        raise ConfigError("Give MODULE:APP, or queues by -q: whose dead letters?")
    # An app from the environment is no reason to refuse a URL from the command line.
    return app_of(None if url is not None and queues else app, url)


def names_of(app: App, queues: list[str] | None) -> list[str]:
    """Return the queues to look into: those that were named, or all of the app and the parking queue."""
    if queues:
        return [dead_name(name) for name in queues]
    return [*(name + SUFFIX for name in sorted(app.plan.queues)), app.plan.names.parked]


def dead_name(queue: str) -> str:
    """Return the queue that holds the dead letters of `queue`; such a queue, or the parking queue, stands for itself."""
    return queue if queue.endswith((SUFFIX, ".parked")) else queue + SUFFIX


@dataclass(frozen=True, slots=True)
class Found:
    """The oldest letter with an id, the places of all that have it, from 1, and how many letters were looked at."""

    letter: DeadLetter | None
    positions: list[int]
    messages: int


def find(admin: Admin, queue: str, wanted: str) -> Found:
    """Return what there is with this id; never by place, since places change between a list and a second look."""
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
    letter = letter_of(positions[0], queue, found[0]) if found else None
    return Found(letter, positions, messages)


def where_found(queue: str, found: Found) -> str:
    """Return which letter is shown."""
    of_all = f"of {found.messages} in queue {printable(queue)!r}"
    if len(found.positions) == 1:
        return f"Letter {found.positions[0]} {of_all}"
    places = ", ".join(map(str, found.positions[:MOST_PLACES]))
    more = "" if len(found.positions) <= MOST_PLACES else " and more"
    return f"Letter {found.positions[0]} {of_all}; {len(found.positions)} have this id: {places}{more}"


def not_found(wanted: str, queue: str, found: Found, depth: Depth | None) -> str:
    """Return why nothing is shown: what was looked at, and whether other processes may hold the letter."""
    missing = f"with the id {printable(wanted)!r}" if wanted else "without an id"
    lines = [f"No letter {missing} found among the {found.messages} in queue {printable(queue)!r}."]
    if depth is not None and depth.consumers:
        lines.append("Other consumers take letters from it now: look again when they have ended.")
    if wanted.isascii() and wanted.isdigit():
        lines.append("A letter is found by its id, not by its place in the list.")
    return "\n".join(lines)


def show_list(queue: str, count: int | None, letters: list[DeadLetter]) -> None:
    """Print the letters of a queue as a table of three lines each."""
    if not letters:
        write(f"{printable(queue)}: {'there is no such queue yet' if count is None else 'no dead letters'}")
        return
    more = f", {len(letters)} shown" if count is not None and count > len(letters) else ""
    title = f"{printable(queue)}: {count} {'letter' if count == 1 else 'letters'}{more}"
    shown = table("#", "id, task, error", "when, attempt", title=title, widths=WIDTHS)
    for letter in letters:
        error_type = letter.error_type.rpartition(".")[2]
        error = ": ".join(part for part in (error_type, letter.error or letter.problem) if part)
        why = ", ".join(part for part in (letter.told_reason, error) if part)
        shown.add_row(
            str(letter.position),
            "\n".join(
                (
                    folded(letter.id) or "(no id)",
                    folded(letter.task) or "(no task)",
                    clipped(why, MOST_ERROR) or "(no reason)",
                )
            ),
            f"{in_utc(letter.failed_at) if letter.failed_at else '?'}\nattempt {letter.attempt}",
        )
    console().print(shown)


def in_utc(time: datetime) -> str:
    """Return a time for people of any zone."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"


def show_letter(letter: DeadLetter) -> None:
    """Print everything about a letter."""
    whole = letter.whole()
    facts = table("", "")
    facts.show_header = False
    whole["reason"] = letter.told_reason
    names = ("id", "task", "queue", "reason", "error_type", "error", "problem", "attempt", "worker", "routing_key")
    for name in names:
        if whole[name]:
            facts.add_row(name.replace("_", " "), printable(str(whole[name]), keep="\n"))
    for name, time in (("first sent", letter.first_sent), ("failed at", letter.failed_at)):
        if time is not None:
            facts.add_row(name, in_utc(time))
    screen = console()
    screen.print(facts)
    section("properties", whole["properties"])
    headers = {name: held for name, held in whole["headers"].items() if held != letter.traceback or not held}
    section("headers", headers)
    section("body", whole["body"])
    if letter.traceback:
        write("\ntraceback")
        write(printable(letter.traceback.rstrip(), keep="\n\t"))


def section(title: str, value: Any) -> None:
    """Print a value as JSON under a title, in ASCII: what strangers wrote cannot act on the terminal."""
    write(f"\n{title}")
    write_json(value)
