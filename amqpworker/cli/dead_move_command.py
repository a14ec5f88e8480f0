"""
`amqpworker dead replay` and `amqpworker dead drop`: letters leave their queue.

Decides what is counted first, what is asked, and how the outcome is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from amqpworker.cli.dead_listing import counted
from amqpworker.cli.dead_options import (
    All,
    AllCopies,
    AppChoice,
    Choice,
    DryRun,
    Groups,
    Ids,
    OlderThan,
    Parked,
    Queues,
    Reasons,
    TaskNames,
    Yes,
    app_with_letters,
)
from amqpworker.cli.dead_plan import (
    VerbPlan,
    count_rows,
    mover_of,
    plan_of,
    refuse_several,
    report_missing,
    show_plan,
    walks_of,
)
from amqpworker.cli.output import console, write, write_json
from amqpworker.cli.parked_warning import warn_if_parked
from amqpworker.cli.questions import agreed
from amqpworker.cli.shared import AsJson, NamespaceOption, Place, UrlOption, closing_app, examples, quiet
from amqpworker.client.letter_mover import check_rate, no_copy
from amqpworker.client.parked_watch import ParkedWatch
from amqpworker.log.terminal import print_error
from amqpworker.model.letter_selection import Selection

if TYPE_CHECKING:
    from amqpworker.app import App
    from amqpworker.client.letter_mover import LetterMover, MakeCopy, Moved
    from amqpworker.client.letter_walks import LetterWalks

move_app = typer.Typer()

MAX_RATE = 100_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """What is done with letters, and how it is asked for."""

    name: str
    done: str
    make_copy: Callable[[LetterWalks], MakeCopy]
    publishes: bool
    rate: float | None = None
    all_copies: bool = False
    dry_run: bool = False
    yes: bool = False
    as_json: bool = False


@move_app.command(
    short_help="Run dead letters again: each returns to its queue.",
    epilog=examples(
        "amqpworker dead replay 0199b3c4-5d6e-7f80-9a1b-2c3d4e5f6071 -q emails",
        "amqpworker dead replay --group 1a2b3c4d --rate 50 --app shop.tasks:app",
        "amqpworker dead replay -q emails --task shop.welcome --dry-run",
    ),
)
def replay(
    context: typer.Context,
    ids: Ids = None,
    queue: Queues = None,
    group: Groups = None,
    task: TaskNames = None,
    reason: Reasons = None,
    older_than: OlderThan = None,
    everything: All = False,
    parked: Parked = False,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0.01, max=MAX_RATE, metavar="N", help="At most N letters per second.", show_default="no limit"
        ),
    ] = None,
    to: Annotated[
        str | None, typer.Option(metavar="QUEUE", help="Another work queue.", show_default="where each died")
    ] = None,
    all_copies: AllCopies = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    app: AppChoice = None,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: AsJson = False,
) -> None:
    """
    Run dead letters again: each returns to its queue with its id, and starts with its first attempt.

    A letter is removed once the broker has confirmed its message. It can be interrupted at any time: what was not replayed stays. It asks before it replays more than one.

    Exit codes: 0 replayed, 1 an id was not found, several letters have one, you did not agree, or some letters stay; 2 it could not be done.
    """
    check_rate(rate)
    choice = Choice(
        ids=ids,
        queues=queue,
        groups=group,
        tasks=task,
        reasons=reason,
        older_than=older_than,
        everything=everything,
        parked=parked,
    )
    verb = Verb(
        name="Replay",
        done="replayed",
        make_copy=lambda walks: walks.targets(to).copy_of,
        publishes=True,
        rate=rate,
        all_copies=all_copies,
        dry_run=dry_run,
        yes=yes,
        as_json=as_json,
    )
    _run(_prepare(choice, Place.of(context, app, url, namespace)), choice, verb)


@move_app.command(
    short_help="Delete dead letters for good.",
    epilog=examples(
        "amqpworker dead drop 0199b3c4-5d6e-7f80-9a1b-2c3d4e5f6071 -q emails",
        "amqpworker dead drop --older-than 30d --reason expired --app shop.tasks:app",
    ),
)
def drop(
    context: typer.Context,
    ids: Ids = None,
    queue: Queues = None,
    group: Groups = None,
    task: TaskNames = None,
    reason: Reasons = None,
    older_than: OlderThan = None,
    everything: All = False,
    parked: Parked = False,
    all_copies: AllCopies = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    app: AppChoice = None,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: AsJson = False,
) -> None:
    """
    Delete dead letters for good; to keep them in a file, export them first.

    It asks before it deletes more than one.

    Exit codes: 0 deleted, 1 an id was not found, several letters have one, or you did not agree; 2 it could not be done.
    """
    choice = Choice(
        ids=ids,
        queues=queue,
        groups=group,
        tasks=task,
        reasons=reason,
        older_than=older_than,
        everything=everything,
        parked=parked,
    )
    verb = Verb(
        name="Drop",
        done="dropped",
        make_copy=lambda _: no_copy,
        publishes=False,
        all_copies=all_copies,
        dry_run=dry_run,
        yes=yes,
        as_json=as_json,
    )
    _run(_prepare(choice, Place.of(context, app, url, namespace)), choice, verb)


def _prepare(choice: Choice, place: Place) -> App:
    quiet()
    choice.check()
    return app_with_letters(place, choice)


def _run(app: App, choice: Choice, verb: Verb) -> None:
    """Count, ask, act and report; ends with exit code 1 if an id was not found or a letter stays."""
    selection = choice.selection
    with closing_app(app), walks_of(app) as walks:
        depths = walks.depths(choice.queues_of(app), must_exist=bool(choice.queues))
        queues = [name for name, depth in depths.items() if depth is not None]
        make_copy = verb.make_copy(walks)
        plan: VerbPlan | None = None
        if choice.ids or verb.dry_run or not verb.yes:
            plan = plan_of(walks, queues, selection, choice.ids or ())
            _check_plan(plan, choice, verb, list(depths))
        watch = ParkedWatch(walks) if verb.publishes else None
        most = plan.by_queue if plan is not None else {}
        total = plan.count if plan is not None else sum(depth.messages for depth in depths.values() if depth)
        with _progress(total, verb) as on_moved:
            mover = mover_of(app, make_copy, verb.rate, on_moved)
            mover.moved.by_name = dict.fromkeys(choice.ids or (), 0)
            _move(walks, {name: most.get(name) for name in queues}, selection, mover, verb)
        if watch is not None:
            warn_if_parked(watch, -mover.moved.by_queue[walks.parked_queue])
    _report(mover.moved, queues, verb)
    if mover.moved.refused or (plan is not None and plan.missing):
        raise typer.Exit(1)


def _check_plan(plan: VerbPlan, choice: Choice, verb: Verb, queues: list[str]) -> None:
    """Report what was found, and ask; ends the command if there is nothing to do."""
    is_missing = report_missing(plan, queues, choice.parked)
    if plan.several and not verb.all_copies:
        _show_undone(plan, verb)
        refuse_several(plan)
    if not plan.count or verb.dry_run:
        if verb.as_json:
            write_json(plan.rows())
        else:
            show_plan(plan)
            write(
                f"Nothing was done: {counted(plan.count, 'dead letter')} would be {verb.done}."
                if plan.count
                else "Nothing was done: no dead letter is selected."
            )
        raise typer.Exit(1 if is_missing else 0)
    if plan.count > 1 and not verb.yes:
        if not verb.as_json:
            show_plan(plan)
        if not agreed(f"{verb.name} {plan.count} dead letters?", verb.yes):
            _show_undone(plan, verb)
            raise typer.Exit(1)


def _show_undone(plan: VerbPlan, verb: Verb) -> None:
    if verb.as_json:
        write_json(plan.rows(acted=False))


def _move(
    walks: LetterWalks, most: dict[str, int | None], selection: Selection, mover: LetterMover, verb: Verb
) -> None:
    """Move the letters of each queue. What had been done is reported before any error."""
    try:
        for queue, limit in most.items():
            if limit != 0:
                walks.move(queue, selection, mover, limit)
    except BaseException:
        print_error(f"Stopped: {counted(mover.moved.count, 'dead letter')} had been {verb.done}; all others stay.")
        raise


def _report(moved: Moved, queues: list[str], verb: Verb) -> None:
    if verb.as_json:
        write_json(count_rows({queue: moved.by_queue[queue] for queue in queues}, moved.by_name))
    else:
        write(f"{counted(moved.count, 'dead letter')} {verb.done}.")
    for text, count in moved.errors.items():
        print_error(f"{counted(count, 'dead letter')} not {verb.done}: {text}")


@contextmanager
def _progress(total: int, verb: Verb) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on a terminal; yield what is called with each number of letters that have left."""
    screen = console(stderr=True)
    if not screen.is_terminal or total < 2:
        yield lambda _: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(verb.done), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen, transient=True) as bar:
        shown = bar.add_task(verb.done, total=total)
        yield lambda count: bar.advance(shown, count)
