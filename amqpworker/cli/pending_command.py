"""
`amqpworker pending`: list, show, cancel and reschedule messages that wait until they are due.

Decides when to ask: messages that fall due in a level of the delay ladder wait while it is read, so it asks before it reads very
many, and when to report how long they waited.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from amqpworker.cli.option_times import future_time, seconds_or_none, time_or_seconds
from amqpworker.cli.output import write, write_json
from amqpworker.cli.questions import agreed
from amqpworker.cli.shared import AsJson, NamespaceOption, Place, UrlOption, app_option, closing_app, examples, quiet
from amqpworker.errors import InvalidArguments
from amqpworker.log.terminal import printable
from amqpworker.model.headers import time_text

if TYPE_CHECKING:
    from amqpworker.app import App
    from amqpworker.client.pending_walk import LadderWalk

ASK_ABOVE = 100_000
REPORTED_LATENESS = 1.0
"""Seconds: what is late by less is not worth a line."""

PER_SECOND = 25_000
"""How many messages a walk reads per second, roughly."""

pending_app = typer.Typer(
    no_args_is_help=True,
    help="List what waits until it is due; cancel or reschedule it.",
)

AppChoice = Annotated[str | None, app_option("The app that has the URL and the namespace.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="The message's id.")]
Yes = Annotated[bool, typer.Option("-y", "--yes", help="Do not ask, however many messages are read.")]


@pending_app.command(
    "list",
    epilog=examples(
        "amqpworker pending list --app shop.tasks:app",
        "amqpworker pending list --task shop.tasks.remind --due-before 3600",
        "amqpworker pending list -q emails --due-before 2026-12-24T18:00Z --json",
    ),
)
def list_pending(
    context: typer.Context,
    app: AppChoice = None,
    task: Annotated[str | None, typer.Option(metavar="TASK", help="Only messages of this task.")] = None,
    queue: Annotated[
        str | None, typer.Option("-q", "--queue", metavar="QUEUE", help="Only messages for this queue.")
    ] = None,
    due_before: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Only what is due before a time (ISO 8601), or within 90 (seconds), 2h or 30d."
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="Messages shown in the table; JSON has all.")] = 20,
    yes: Yes = False,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: AsJson = False,
) -> None:
    """
    List messages that wait, those that are due first.

    They wait in queues with fixed delays, the levels of the delay ladder, which are read one after the other.
    What falls due while its level is read is late by that time at most, which is reported above 1 s. A message that moves from one level to
    the next meanwhile may be missing. Do not use the UI's "Get messages" on a level: it reorders it, which makes messages late.

    Exit codes: 0 listed, also if there are none; 1 you did not agree; 2 the levels could not be read.
    """
    from amqpworker.cli.pending_listing import print_array, print_table
    from amqpworker.client.pending import selection

    before = None if due_before is None else time_or_seconds(due_before, "--due-before")
    chosen = selection(task, queue, before, datetime.now(UTC).timestamp())
    # Closed before the connection, which would requeue a part of a level only.
    with _ladder(_app(context, app, url, namespace), yes) as walk, closing(walk.messages()) as found:
        messages = filter(chosen, found)
        if as_json:
            print_array(messages)
        elif not print_table(messages, limit):
            is_choice = task is not None or queue is not None or before is not None
            write(f"No messages {'with this task, queue or due time ' * is_choice}are pending.")


@pending_app.command(epilog=examples("amqpworker pending show reminder-7 --app shop.tasks:app"))
def show(
    context: typer.Context,
    message: Id,
    app: AppChoice = None,
    yes: Yes = False,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: AsJson = False,
) -> None:
    """
    Show one message with its headers and its body.

    Exit codes: 0 shown, 1 not found, 2 the levels could not be read.
    """
    from amqpworker.cli.pending_listing import print_whole, whole
    from amqpworker.client.pending import find

    with _ladder(_app(context, app, url, namespace), yes) as walk:
        found = find(walk, message)
    if found is None:
        _not_found(message, as_json)
    elif as_json:
        write_json([whole(found)])
    else:
        print_whole(found)


@pending_app.command(
    short_help="Cancel messages: all workers learn it, then they are removed.",
    epilog=examples(
        "amqpworker pending cancel reminder-7 --app shop.tasks:app",
        "amqpworker pending cancel reminder-7 --due 2027-03-01T08:00Z",
    ),
)
def cancel(
    context: typer.Context,
    messages: Annotated[list[str], typer.Argument(metavar="ID", help="The messages' ids.")],
    app: AppChoice = None,
    force: Annotated[bool, typer.Option("--force", help="End a task that runs already, too.")] = False,
    due: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="When they are due (ISO 8601): the cancel holds until a week later."),
    ] = None,
    yes: Yes = False,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: AsJson = False,
) -> None:
    """
    Cancel messages: announce it to all workers, then remove those that wait.

    `removed` is a message that was found and will never run. `announced` means that no connected worker starts it, and none that
    starts later, until the time that is shown. A task that runs sees it in current().cancelled. Once standard error has that it is announced, this holds, also if a level cannot be read afterwards.

    Exit codes: 0 cancelled, 1 it may not be announced: cancel again; 2 the levels could not be read.
    """
    from amqpworker.client.pending import cancel as cancel_messages

    moment = future_time(due, "--due", "Without --due, the cancel holds for a week from now on.")
    due_at = None if moment is None else moment.timestamp()
    found = _app(context, app, url, namespace)
    with closing_app(found), _ladder(found, yes) as walk:
        removed, until = cancel_messages(found, walk, messages, force, due_at, _report_announced)
    until_text = time_text(int(until * 1000))
    ids = list(dict.fromkeys(messages))
    if as_json:
        write_json(
            [
                {"id": one, "outcome": "removed", "until": None}
                if one in removed
                else {"id": one, "outcome": "announced", "until": until_text}
                for one in ids
            ]
        )
        return
    for one in ids:
        outcome = "removed" if one in removed else _announced_text(until_text, force)
        write(f"{printable(one)}: {outcome}")


@pending_app.command(
    epilog=examples(
        "amqpworker pending reschedule reminder-7 --delay 3600",
        "amqpworker pending reschedule reminder-7 --at 2026-12-24T18:00Z",
        "amqpworker pending reschedule reminder-7 --now",
    )
)
def reschedule(
    context: typer.Context,
    message: Id,
    app: AppChoice = None,
    delay: Annotated[
        str | None, typer.Option(metavar="SECONDS", help="Due this long from now on: 90, or 5m, 2h, 30d.")
    ] = None,
    at: Annotated[str | None, typer.Option(metavar="TIME", help="Due at this time (ISO 8601).")] = None,
    now: Annotated[bool, typer.Option("--now", help="Due now.")] = False,
    yes: Yes = False,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: AsJson = False,
) -> None:
    """
    Have a message that waits be due at another time. It keeps its id and its attempt.

    Exit codes: 0 rescheduled, 1 not found, or you did not agree; 2 the levels could not be read.
    """
    from amqpworker.client.pending import delay_function
    from amqpworker.client.pending import reschedule as reschedule_message

    if (delay is not None) + (at is not None) + now != 1:
        raise InvalidArguments("Use one of --delay, --at and --now.")
    moment = future_time(at, "--at", "For now there is --now.")
    seconds = delay_function(0.0 if now else seconds_or_none(delay, "--delay"), moment)
    found = _app(context, app, url, namespace)
    with closing_app(found), _ladder(found, yes) as walk:
        due = reschedule_message(found, walk, message, seconds)
    if due is None:
        _not_found(message, as_json)
        return
    due_text = time_text(int(due * 1000))
    if as_json:
        write_json([{"id": message, "due": due_text}])
    else:
        write(f"{printable(message)}: due {due_text}")


def _app(context: typer.Context, app: str | None, url: str | None, namespace: str | None) -> App:
    quiet()
    return Place.of(context, app, url, namespace).open()


@contextmanager
def _ladder(app: App, yes: bool) -> Iterator[LadderWalk]:
    """Connect to read the ladder, once the user agrees, and report at the end how long a level was kept from delivering."""
    from amqpworker.client.pending import Pending

    walk = Pending(app, on_busy=_report).walk()
    try:
        with walk:
            _ask(walk, yes, app.plan.names.namespace)
            yield walk
    finally:
        if walk.longest >= REPORTED_LATENESS:
            count = "1 message" if walk.read == 1 else f"{walk.read} messages"
            _report(f"{count} read; what fell due meanwhile was late by at most {walk.longest:.2f} s.")


def _ask(walk: LadderWalk, yes: bool, namespace: str) -> None:
    """Ask if many messages are to be read, and report what is not known of them; ends the command if the user does not agree."""
    levels = walk.levels()
    if not walk.has_ladder:
        _report(
            f"namespace {namespace!r} has no delay ladder on this broker: nothing has been delayed in it yet, or its name is wrong."
        )
    if walk.missing:
        names = ", ".join(walk.missing)
        _report(
            f"of the levels of the delay ladder these do not exist, and what waited in them is lost: {names}. Create them with "
            f"`amqpworker topology declare`."
        )
    busy = [level.name for level in levels if level.is_read]
    for name in busy:
        _report(f"another program is reading queue {name!r}: its messages are not all counted")
    messages = sum(level.messages for level in levels)
    if messages > ASK_ABOVE:
        question = (
            f"{'At least ' if busy else ''}{messages} messages wait. What falls due while they are read is late by up to about "
            f"{messages // PER_SECOND} s{' or more' if busy else ''}. Read them?"
        )
        if not agreed(question, yes):
            raise typer.Exit(1)


def _report(text: str) -> None:
    sys.stderr.write(f"{printable(text)}\n")


def _announced_text(until: str, force: bool) -> str:
    end = "; if it runs, it is ended" if force else ""
    return f"announced, not found among the delayed messages: no worker starts it until {until}{end}"


def _report_announced(until: float) -> None:
    _report(f"announced, until {time_text(int(until * 1000))}; now removing what waits …")


def _not_found(wanted: str, as_json: bool) -> None:
    if as_json:
        write_json([])
    else:
        write(
            f"No pending message with the id {printable(wanted)!r} was found: it may be moving to the next level of the delay ladder, "
            f"be in its queue already, or have run."
        )
    raise typer.Exit(1)
