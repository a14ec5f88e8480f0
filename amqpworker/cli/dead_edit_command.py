"""
`amqpworker dead edit`: other arguments for a dead letter, checked against its task before anything changes.

Decides that the text from an editor is kept in its file until it was used.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amqpworker.cli.dead_listing import counted
from amqpworker.cli.dead_options import AllCopies, Choice, LetterId, Parked, Queues
from amqpworker.cli.dead_plan import mover_of, plan_of, refuse_several, report_missing, walks_of
from amqpworker.cli.output import write, write_json
from amqpworker.cli.parked_warning import warn_if_parked
from amqpworker.cli.shared import AsJson, app_option, closing_app, examples, load, quiet
from amqpworker.cli.values import pairs
from amqpworker.client.parked_watch import ParkedWatch
from amqpworker.errors import ConfigError, InvalidArguments
from amqpworker.log.terminal import print_error, printable
from amqpworker.model.headers import VERSION
from amqpworker.routing.envelope import publication_of_letter
from amqpworker.text import did_you_mean

if TYPE_CHECKING:
    from amqpworker.app import App
    from amqpworker.client.letter_mover import LetterMover, MakeCopy, Moved
    from amqpworker.client.letter_walks import LetterWalks
    from amqpworker.model.dead_letter import DeadLetter
    from amqpworker.model.message import Publication
    from amqpworker.task import RemoteTask

edit_app = typer.Typer()


@dataclass(frozen=True, slots=True)
class Edit:
    """Another body, of this version of the task, in place of the one that the original has."""

    original: DeadLetter
    body: bytes
    version: int
    replay: bool

    def is_of(self, letter: DeadLetter) -> bool:
        """Return whether a letter has the task and the arguments that were edited."""
        return _edited_parts(letter) == _edited_parts(self.original)


def _edited_parts(letter: DeadLetter) -> tuple[object, ...]:
    return letter.task, letter.message.body, (letter.message.properties.headers or {}).get(VERSION)


@edit_app.command(
    short_help="Change the arguments of a dead letter.",
    epilog=examples(
        "amqpworker dead edit id-1 --set user_id=42 --app shop.tasks:app",
        "EDITOR=nano amqpworker dead edit id-1 --replay --app shop.tasks:app",
    ),
)
def edit(
    letter: LetterId,
    app: Annotated[str, app_option("The app that has the task.")],
    values: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="An argument, in JSON or as text; repeatable. Default: open $EDITOR."
        ),
    ] = None,
    queue: Queues = None,
    parked: Parked = False,
    replay: Annotated[bool, typer.Option("--replay", help="Run it again at once.")] = False,
    all_copies: AllCopies = False,
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Another broker that has the queues of the app.", show_default="the one of the app"
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """
    Change the arguments of a dead letter; it stays a dead letter, the last of its queue, or runs with --replay.

    The new arguments must fit the task. If they do not, nothing changes, and what was edited stays in its file. With --all-copies, only letters of the same task and arguments are changed.

    Exit codes: 0 changed; 1 the letter was not found, several have this id, or one with other arguments stays; 2 the arguments do not fit, or the queue could not be read.
    """
    quiet()
    pairs(values or [], "argument")  # a mistake in the command line is reported before anything is searched
    found = load(app)
    broker = found if url is None else elsewhere(found, url)
    try:
        moved = _edit(found, broker, Choice(ids=[letter], queues=queue, parked=parked), values, replay, all_copies)
    except typer.Exit:
        if as_json:
            write_json([{"name": letter, "letters": 0}])
        raise
    if as_json:
        write_json([{"name": letter, "letters": moved.count}])
    else:
        runs = "it" if moved.count == 1 else "them"
        outcome = "changed and replayed" if replay else f"changed; `dead replay` runs {runs}"
        write(printable(f"{counted(moved.count, 'dead letter')} {outcome}."))
    if moved.refused:
        raise typer.Exit(1)


def _edit(app: App, broker: App, choice: Choice, values: list[str] | None, replay: bool, all_copies: bool) -> Moved:
    """Change a letter at a broker by the task that the app has; ends the command if nothing was changed."""
    with closing_app(broker):
        with walks_of(broker) as walks:
            original = _find(walks, _existing(walks, broker, choice), choice, all_copies)
        task = _task(app, original.task)
        signature = task.signature
        if values:
            body, kept = _with_values(original, values, task), None
        else:
            kept = _kept_text(original)
            body = _from_editor(kept)
        mover: LetterMover | None = None
        try:
            signature.decode(body)
            with walks_of(broker) as walks:
                mover = mover_of(broker, _make_copy(walks, broker, Edit(original, body, task.version, replay)))
                _replace(walks, broker, choice, mover)
        except BaseException:
            _report_stopped(mover, kept)
            raise
    _report_refused(mover.moved, kept)
    return mover.moved


def _existing(walks: LetterWalks, app: App, choice: Choice) -> list[str]:
    depths = walks.depths(choice.queues_of(app), must_exist=bool(choice.queues))
    return [name for name, depth in depths.items() if depth is not None]


def _find(walks: LetterWalks, queues: list[str], choice: Choice, all_copies: bool) -> DeadLetter:
    """Return the letter that is to be edited; ends the command if there is none, or if there are several."""
    plan = plan_of(walks, queues, choice.selection, choice.ids or ())
    if report_missing(plan, queues, choice.parked):
        raise typer.Exit(1)
    if not all_copies:
        refuse_several(plan)
    found = [letter for queue in queues if plan.by_queue[queue] for letter in walks.read(queue, choice.selection)]
    if not found:
        print_error("The dead letter has left its queue meanwhile.")
        raise typer.Exit(1)
    return found[0]


def _task(app: App, task: str) -> RemoteTask[Any, Any]:
    found = app.tasks.get(task) or app.remotes.get(task)
    if found is None:
        known = did_you_mean(task, [*app.tasks, *app.remotes])
        raise ConfigError(f"The app has no task {task!r}{known}: the arguments cannot be checked.")
    return found


def _with_values(letter: DeadLetter, values: list[str], task: RemoteTask[Any, Any]) -> bytes:
    """Return the body with some arguments replaced; ends the command if it has these arguments already."""
    given = pairs(values, "argument", task.signature.hints)
    try:
        arguments = json.loads(letter.message.body)
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise InvalidArguments("The body of the letter is not a JSON object: edit it as a whole, without --set.")
    body, version = _compact({**arguments, **given}), (letter.message.properties.headers or {}).get(VERSION, 1)
    if body == _compact(arguments) and version == task.version:
        print_error("Nothing was changed: it has these arguments already. `dead replay` runs it as it is.")
        raise typer.Exit(1)
    return body


def _compact(arguments: Any) -> bytes:
    return json.dumps(arguments, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def _kept_text(letter: DeadLetter) -> Path:
    """Return a file of this user with the body, indented if it is JSON."""
    body = letter.message.body
    try:
        text = json.dumps(json.loads(body), ensure_ascii=False, indent=2) + "\n"
    except (ValueError, RecursionError):
        text = body.decode("utf-8", "backslashreplace")
    number, name = tempfile.mkstemp(prefix="amqpworker-", suffix=".json")
    with os.fdopen(number, "w", encoding="utf-8", errors="surrogatepass") as file:
        file.write(text)
    return Path(name)


def _from_editor(file: Path) -> bytes:
    """Return what a user made of the text in a file; the command ends if it was not changed, or is not JSON."""
    before = file.read_bytes()
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        with without_interrupts():
            code = subprocess.call([*shlex.split(editor), str(file)])  # noqa: S603 - the user's own editor
    except (OSError, ValueError) as error:
        file.unlink()
        raise ConfigError(f"The editor {editor!r} cannot be started: {error}. Set EDITOR, or use --set.") from error
    after = file.read_bytes()
    if code or after == before:
        is_kept = after != before
        if not is_kept:
            file.unlink()
        reason = f": the editor ended with code {code}" if code else ""
        print_error(f"Nothing was changed{reason}.{f' The edited text is in {file}.' if is_kept else ''}")
        raise typer.Exit(1)
    try:
        return _compact(json.loads(after))
    except (ValueError, RecursionError) as error:
        raise InvalidArguments(f"The edited text is not JSON: {error}. Nothing was changed; it is in {file}.") from None


@contextmanager
def without_interrupts() -> Iterator[None]:
    """
    Ignore Ctrl-C, which a terminal sends to us and to the editor: it is the editor's.

    By a handler that does nothing: unlike SIG_IGN it is not passed to a program that is started.
    """
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def elsewhere(app: App, url: str) -> App:
    """Return an app for another broker that has the queues and the settings of an app."""
    from amqpworker.app import App

    other = App(url, namespace=app.plan.names.namespace, settings=app.settings)
    for name in app.plan.queues:
        other.queue(name)
    return other


def _make_copy(walks: LetterWalks, app: App, edit: Edit) -> MakeCopy:
    targets = walks.targets(None)

    def copy_of(letter: DeadLetter) -> Publication:
        if not edit.is_of(letter):
            raise InvalidArguments("It has another task or other arguments: it stays.")
        if not edit.replay:
            return with_version(publication_of_letter(letter, app.plan.names, edit.body), edit.version)
        publication = targets.copy_of(letter)
        publication.body = edit.body
        return with_version(publication, edit.version)

    return copy_of


def with_version(publication: Publication, version: int) -> Publication:
    """Return a publication whose arguments have this version: the edited ones fit the task as it is, and need no upgrade."""
    headers = {name: value for name, value in (publication.properties.headers or {}).items() if name != VERSION}
    if version > 1:
        headers[VERSION] = version
    publication.properties = replace(publication.properties, headers=headers)
    return publication


def _replace(walks: LetterWalks, app: App, choice: Choice, mover: LetterMover) -> None:
    watch = ParkedWatch(walks)
    for queue in _existing(walks, app, choice):
        walks.move(queue, choice.selection, mover)
    if not choice.parked:
        warn_if_parked(watch)


def _report_stopped(mover: LetterMover | None, kept: Path | None) -> None:
    """Report what had been done when an error or a Ctrl-C ended the command."""
    where = "" if kept is None else f" The edited text is in {kept}."
    if mover is None or not mover.has_published:
        if kept is not None:
            print_error(f"Nothing was changed.{where}")
        return
    done = (
        f"{counted(mover.moved.count, 'dead letter')} changed" if mover.moved.count else "it is not known what changed"
    )
    print_error(f"Stopped: {done}; a letter whose copy was not confirmed may exist twice.{where}")


def _report_refused(moved: Moved, kept: Path | None) -> None:
    """Report which letters were not changed, and end the command if none was; what was edited has been used otherwise."""
    for text, count in moved.errors.items():
        print_error(f"{counted(count, 'dead letter')} not changed: {text}")
    if not moved.count:
        where = "" if kept is None else f" The edited text is in {kept}."
        print_error(f"Nothing was changed: the dead letter stays, or has left its queue meanwhile.{where}")
        raise typer.Exit(1)
    if kept is not None:
        kept.unlink(missing_ok=True)
