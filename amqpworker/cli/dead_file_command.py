"""
`amqpworker dead export` and `amqpworker dead import`: letters as lines of JSON in a file, and back into their queues.

Decides that a file is complete or not there, and that all of it is read before any of it is imported.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from amqpworker.cli.dead_listing import counted
from amqpworker.cli.dead_options import (
    All,
    AppChoice,
    Choice,
    Groups,
    Ids,
    OlderThan,
    Parked,
    Queues,
    Reasons,
    TaskNames,
    app_with_letters,
)
from amqpworker.cli.dead_plan import VerbPlan, count_rows, mover_of, report_missing, walks_of
from amqpworker.cli.output import write, write_json
from amqpworker.cli.parked_warning import warn_if_parked
from amqpworker.cli.shared import AsJson, NamespaceOption, Place, UrlOption, closing_app, examples, quiet
from amqpworker.client.letter_spool import read_first
from amqpworker.client.parked_watch import ParkedWatch
from amqpworker.errors import ConfigError, InvalidArguments
from amqpworker.log.terminal import print_error
from amqpworker.model.letter_dump import dump_letter, load_letter
from amqpworker.routing.envelope import publication_of_letter
from amqpworker.routing.topology import work_queue_of

if TYPE_CHECKING:
    from amqpworker.app import App
    from amqpworker.model.dead_letter import DeadLetter
    from amqpworker.model.message import Delivery
    from amqpworker.routing.topology import Names

PIPE = "-"

file_app = typer.Typer()

File = Annotated[str, typer.Argument(metavar="FILE", help="A file of JSON lines; - is the pipe.")]


@file_app.command(
    short_help="Write dead letters to a file, one JSON object a line.",
    epilog=examples(
        "amqpworker dead export letters.jsonl --app shop.tasks:app",
        "amqpworker dead export letter.jsonl reminder-7 -q emails",
        "amqpworker dead export - -q emails --older-than 30d | gzip > letters.gz",
    ),
)
def export(
    context: typer.Context,
    file: File,
    ids: Ids = None,
    queue: Queues = None,
    group: Groups = None,
    task: TaskNames = None,
    reason: Reasons = None,
    older_than: OlderThan = None,
    everything: All = False,
    parked: Parked = False,
    app: AppChoice = None,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: AsJson = False,
) -> None:
    """
    Write dead letters to a file, one JSON object a line; they stay where they are.

    The file is made once all are written, readable by you alone; one that exists is not replaced. All letters that have one of the ids are written.

    Exit codes: 0 written, 1 an id was not found, 2 a queue could not be read, or the file not be written.
    """
    quiet()
    if as_json and file == PIPE:
        raise ConfigError(
            "--json needs a FILE: with - the letters themselves are on standard output, one JSON object a line."
        )
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
    choice.check_all()
    found = app_with_letters(Place.of(context, app, url, namespace), choice)
    plan = VerbPlan({}, {name: {} for name in ids or ()})
    try:
        _write_letters(found, choice, file, plan)
    except typer.Exit:
        if as_json:
            write_json(plan.rows())
        raise
    if as_json:
        write_json(plan.rows())
    elif file != PIPE:
        write(f"{counted(plan.count, 'dead letter')} exported to {file}; they stay in their queues.")
    if plan.missing:
        raise typer.Exit(1)


def _write_letters(app: App, choice: Choice, file: str, plan: VerbPlan) -> None:
    """Write the letters to a file, and count them in a plan; ends the command, without a file, if none has one of the ids."""
    with walks_of(app) as walks, _written(file) as out:
        depths = walks.depths(choice.queues_of(app), must_exist=bool(choice.queues))
        for queue in [name for name, depth in depths.items() if depth is not None]:
            plan.by_queue[queue] = 0
            # Read first: a pipe may be slow, and the letters are kept from others meanwhile.
            for letter in read_first(walks.read(queue, choice.selection)):
                out.write(dump_letter(letter) + "\n")
                plan.add(letter)
        if report_missing(plan, list(depths), choice.parked) and not plan.count:
            raise typer.Exit(1)


@contextmanager
def _written(file: str) -> Iterator[IO[str]]:
    """Yield what is written to: standard output, or a file that gets its name once it is complete."""
    if file == PIPE:
        try:
            yield sys.stdout
            sys.stdout.flush()
        except OSError as error:
            # Else the interpreter writes what is left at its end, and reports that it cannot.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            text = f"Cannot write to standard output: {error.strerror}."
            if isinstance(error, BrokenPipeError):
                text = "The program that reads the pipe has ended: not all dead letters are exported."
            raise ConfigError(text) from None
        return
    path = Path(file)
    try:
        number, made = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise ConfigError(f"Cannot write {file}: {error.strerror}.") from error
    try:
        with os.fdopen(number, "w", encoding="ascii") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        os.link(made, path)  # unlike a rename it does not replace a file
    except FileExistsError:
        raise ConfigError(f"{file} exists already: choose another name, or delete it.") from None
    except OSError as error:
        raise ConfigError(f"Cannot write {file}: {error.strerror}.") from error
    finally:
        with suppress(OSError):
            Path(made).unlink()


@file_app.command(
    "import",
    short_help="Put exported letters into their dead-letter queues.",
    epilog=examples(
        "amqpworker dead import letters.jsonl --app shop.tasks:app",
        "zcat letters.gz | amqpworker dead import - --app shop.tasks:app",
    ),
)
def import_letters(
    context: typer.Context,
    file: File,
    app: AppChoice = None,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: AsJson = False,
) -> None:
    """
    Put exported letters into their dead-letter queues, from which they can be replayed.

    The whole file is read first: if a line is not valid, nothing is imported. A letter that is in its queue already is there twice afterwards, with the same id.

    Exit codes: 0 imported, 1 some were not confirmed, 2 the file or a queue is not valid.
    """
    quiet()
    found = Place.of(context, app, url, namespace).open()
    names = found.plan.names
    with closing_app(found), _lines(file) as lines, walks_of(found) as walks:
        counts = Counter(_checked(letter, names).queue for letter in _letters(lines))
        walks.depths(list(counts), must_exist=True)
        lines.seek(0)
        mover = mover_of(found, lambda letter: publication_of_letter(letter, names))
        watch = ParkedWatch(walks)
        try:
            for letter in _letters(lines):
                mover.add(letter, NOWHERE)
            mover.flush(NOWHERE)
        except BaseException:
            print_error(
                f"Stopped: {mover.moved.count} of {counts.total()} letters are imported, not necessarily the first. If the whole file "
                f"is imported again, these are there twice, with the same ids."
            )
            raise
        warn_if_parked(watch, counts[names.parked])
    if as_json:
        write_json(count_rows({queue: mover.moved.by_queue[queue] for queue in counts}, {}))
    else:
        write(f"{counted(mover.moved.count, 'dead letter')} imported.")
    for text, count in mover.moved.errors.items():
        print_error(f"{counted(count, 'dead letter')} not imported: {text}")
    if mover.moved.refused:
        raise typer.Exit(1)


class _Nowhere:
    """Letters of a file are not removed from it."""

    def remove(self, _: Sequence[Delivery], on_removed: Callable[[], None]) -> None:
        """Only call `on_removed`."""
        on_removed()


NOWHERE = _Nowhere()


def _letters(lines: IO[bytes]) -> Iterator[DeadLetter]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield load_letter(line, number)


def _checked(letter: DeadLetter, names: Names) -> DeadLetter:
    """Return a letter whose queue is for dead letters; raises InvalidArguments for another one."""
    if letter.queue != names.parked and not work_queue_of(letter.queue, ""):
        raise InvalidArguments(f"Line {letter.position}: {letter.queue!r} is not a dead-letter queue.")
    return letter


@contextmanager
def _lines(file: str) -> Iterator[IO[bytes]]:
    """Yield the content of a file, or of standard input, to be read twice."""
    with ExitStack() as opened:
        try:
            lines = sys.stdin.buffer if file == PIPE else opened.enter_context(Path(file).open("rb"))
            if file == PIPE or not lines.seekable():
                kept = opened.enter_context(tempfile.TemporaryFile())
                shutil.copyfileobj(lines, kept)
                kept.seek(0)
                lines = kept
        except OSError as error:
            raise ConfigError(f"Cannot read {file}: {error.strerror}.") from error
        yield lines
