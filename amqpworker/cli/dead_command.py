"""
`amqpworker dead`: list and show dead letters; the other verbs are in files of their own.

Decides which queues are read, and how many letters are shown; these commands change nothing.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amqpworker.cli.dead_edit_command import edit_app
from amqpworker.cli.dead_file_command import file_app
from amqpworker.cli.dead_letters import group_summary, summary, whole
from amqpworker.cli.dead_listing import counted, show_groups, show_letter, show_letters, show_missing, show_none
from amqpworker.cli.dead_move_command import move_app
from amqpworker.cli.dead_options import (
    All,
    AppChoice,
    Choice,
    Groups,
    LetterId,
    OlderThan,
    Parked,
    Queues,
    Reasons,
    TaskNames,
    app_with_letters,
)
from amqpworker.cli.dead_plan import group_hint, walks_of
from amqpworker.cli.output import write, write_json
from amqpworker.cli.shared import AsJson, NamespaceOption, Place, UrlOption, examples, is_typed, quiet
from amqpworker.errors import ConfigError
from amqpworker.log.terminal import printable
from amqpworker.model.dead_letter import DeadLetter
from amqpworker.model.letter_groups import LetterGroups

if TYPE_CHECKING:
    from amqpworker.app import App
    from amqpworker.broker.tool_connection import Depth
    from amqpworker.client.letter_walks import LetterWalks
    from amqpworker.model.letter_selection import Selection

MAX_LIMIT = 100_000

dead_app = typer.Typer(
    no_args_is_help=True,
    short_help="List, replay, edit, drop and export dead letters.",
    help="List dead letters and parked messages; replay, edit, drop or export them.",
)

AppArgument = Annotated[
    str | None, typer.Argument(metavar="MODULE:APP", help="The app whose queues are listed; same as --app.")
]


@dead_app.command(
    "list",
    short_help="List dead letters, in groups or one by one.",
    epilog=examples(
        "amqpworker dead list --app shop.tasks:app",
        "amqpworker dead list -q emails --older-than 30d --letters --json",
        "amqpworker dead list --app shop.tasks:app --parked",
    ),
)
def list_letters(
    context: typer.Context,
    named: AppArgument = None,
    app: AppChoice = None,
    queue: Queues = None,
    group: Groups = None,
    task: TaskNames = None,
    reason: Reasons = None,
    older_than: OlderThan = None,
    everything: All = False,
    parked: Parked = False,
    letters: Annotated[bool, typer.Option("--letters", help="Each letter, the oldest first, not groups.")] = False,
    limit: Annotated[
        int, typer.Option(min=1, max=MAX_LIMIT, metavar="N", help="With --letters: how many per queue.")
    ] = 20,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: AsJson = False,
) -> None:
    """
    List dead letters, in groups of the same queue, task and error; they stay where they are.

    Errors are the same if they differ only in numbers, ids and quoted parts. Without -q, parked messages are listed, too.

    Exit codes: 0 listed, also if there are none; 2 a queue could not be read.
    """
    quiet()
    if named is not None and is_typed(context, "app"):
        raise ConfigError("Use MODULE:APP or --app, not both.")
    choice = Choice(
        queues=queue,
        groups=group,
        tasks=task,
        reasons=reason,
        older_than=older_than,
        everything=everything,
        parked=parked,
    )
    choice.check_all()
    selection = choice.selection
    place = Place.of(context, app, url, namespace) if named is None else Place(named, url, namespace)
    found = app_with_letters(place, choice)
    listed: list[dict[str, Any]] = []
    with walks_of(found) as walks:
        for name, depth in walks.depths(_queues(found, choice), must_exist=bool(queue)).items():
            kind = "parked message" if name == walks.parked_queue else "dead letter"
            if depth is None or not _may_have_letters(depth):
                if not as_json:
                    show_missing(name, depth is not None, kind)
            elif letters:
                listed += _list_letters(walks, name, selection, limit, kind, as_json)
            else:
                listed += _list_groups(walks, name, selection, kind, as_json)
    if as_json:
        write_json(listed)


def _queues(app: App, choice: Choice) -> list[str]:
    queues = choice.queues_of(app)
    return queues if choice.queues or choice.parked else [*queues, app.plan.names.parked]


def _may_have_letters(depth: Depth) -> bool:
    """Return whether a queue has messages, or a reader that may have received all of them: then a walk waits for it."""
    return bool(depth.messages or depth.consumers)


def _list_letters(
    walks: LetterWalks, queue: str, selection: Selection, limit: int, kind: str, as_json: bool
) -> list[dict[str, Any]]:
    count = 0
    listed: list[dict[str, Any]] = []
    shown: list[DeadLetter] = []
    for letter in walks.read(queue, selection):
        count += 1
        if count <= limit and as_json:
            listed.append(summary(letter))
        elif count <= limit:
            shown.append(letter)
    if not as_json and count:
        show_letters(queue, count, shown, kind)
    elif not as_json:
        show_none(queue, kind)
    return listed


def _list_groups(
    walks: LetterWalks, queue: str, selection: Selection, kind: str, as_json: bool
) -> list[dict[str, Any]]:
    groups = LetterGroups()
    for letter in walks.read(queue, selection):
        groups.add(letter)
    if as_json:
        return [group_summary(group) for group in groups]
    if groups.count:
        show_groups(queue, list(groups), kind)
    else:
        show_none(queue, kind)
    return []


@dead_app.command(
    short_help="Show a dead letter with its headers, body and traceback.",
    epilog=examples(
        "amqpworker dead show 0199b3c4-5d6e-7f80-9a1b-2c3d4e5f6071 -q emails",
        "amqpworker dead show sha256:5d6e7f809a1b --app shop.tasks:app --json",
    ),
)
def show(
    context: typer.Context,
    letter: LetterId,
    queue: Queues = None,
    parked: Parked = False,
    app: AppChoice = None,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: AsJson = False,
) -> None:
    """
    Show a dead letter with its headers, body and traceback; it stays where it is.

    Of several with this id it is the oldest; --json prints all of them.

    Exit codes: 0 shown, 1 there is no such dead letter, 2 the queue could not be read.
    """
    quiet()
    choice = Choice(ids=[letter], queues=queue, parked=parked)
    source = app_with_letters(Place.of(context, app, url, namespace), choice)
    found: list[dict[str, Any]] = []
    oldest: DeadLetter | None = None
    where: Counter[str] = Counter()
    with walks_of(source) as walks:
        depths = walks.depths(_queues(source, choice), must_exist=bool(queue))
        for name in [name for name, depth in depths.items() if depth is not None and _may_have_letters(depth)]:
            for one in walks.read(name, choice.selection):
                oldest = oldest or one
                where[name] += 1
                if as_json:
                    found.append(whole(one))
    if as_json:
        write_json(found)
    elif oldest is None:
        write(not_found(letter, list(depths)))
    else:
        write(f"{_place_text(oldest, where)}\n")
        show_letter(oldest)
    if oldest is None:
        raise typer.Exit(1)


def _place_text(letter: DeadLetter, where: Counter[str]) -> str:
    place = f"Dead letter in queue {printable(letter.queue)!r}"
    if where.total() == 1:
        return place
    places = ", ".join(f"{printable(queue)} ({count})" for queue, count in where.items())
    return f"{place}; {where.total()} have this id: {places}"


def not_found(wanted: str, queues: list[str]) -> str:
    """Return which letter was not found, and where."""
    where = f"in queue {printable(queues[0])!r}" if len(queues) == 1 else f"in {counted(len(queues), 'queue')}"
    lines = [f"No dead letter with the id {printable(wanted)!r} {where}."]
    if wanted.isascii() and wanted.isdigit():
        lines.append("Give the id of a dead letter, not its position in the list.")
    if hint := group_hint(wanted):
        lines.append(hint.strip())
    return "\n".join(lines)


for part in (move_app, edit_app, file_app):
    dead_app.add_typer(part)
