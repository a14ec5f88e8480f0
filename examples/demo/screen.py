"""What the demo shows: its progress, then its results; on a terminal or as plain lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from examples.demo.job import Tally

LINES = 10
SHOWN = 3


@contextmanager
def progress(console: Console, total: int) -> Iterator[Callable[[Tally], None]]:
    """Provide a function that shows the progress: a bar on a terminal, otherwise a line for each tenth."""
    if not console.is_terminal:
        yield plain(console)
        return
    columns = (
        TextColumn("files"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[dead]} dead, {task.fields[retried]} retried, {task.fields[ticks]} ticks"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as bar:
        shown = bar.add_task("", total=total, dead=0, retried=0, ticks=0)

        def show(tally: Tally) -> None:
            dead, ticks = len(tally.dead), len(tally.ticks)
            bar.update(shown, completed=tally.ended, dead=dead, retried=tally.retried, ticks=ticks)

        yield show


def plain(console: Console) -> Callable[[Tally], None]:
    """Return a function that prints a line for each tenth of the work."""
    printed = 0

    def show(tally: Tally) -> None:
        nonlocal printed
        tenth = tally.ended * LINES // tally.total
        if tenth > printed:
            printed = tenth
            line = f"{tally.ended}/{tally.total} files, {len(tally.dead)} dead, {tally.retried} retried"
            line += f", {len(tally.ticks)} ticks"
            console.print(line)

    return show


def summary(console: Console, tally: Tally, folder: Path) -> None:
    """Show the results."""
    counts = tally.counts.values()
    table = Table(box=box.SIMPLE_HEAD, show_header=False, title="Results", title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    table.add_row("sent", f"{tally.sent} in {tally.sent_in:.2f} s, each confirmed by the broker")
    table.add_row("done", f"{len(counts)}, {tally.ended / tally.took:.0f} tasks/s in {tally.took:.1f} s")
    table.add_row("retried", f"{tally.retried} failed once, waited a second in the broker, and succeeded")
    why = ", ".join(f"{number} {reason}" for reason, number in tally.reasons.items())
    table.add_row("dead", f"{tally.letters} in queue {tally.letters_queue} with the reason: {why}" if why else "none")
    if tally.replayed is not None:
        table.add_row("replayed", f"the dead letter of {tally.replayed.name}, once the file was repaired")
    table.add_row("delayed", f"one task, for two seconds; it ran {tally.late * 1000:.0f} ms after it was due")
    if tally.cancelled:
        table.add_row("cancelled", "one task that was delayed by an hour: it was removed from the delay ladder")
    late = median(tally.ticks) * 1000
    table.add_row("schedule", f"{len(tally.ticks)} ticks, one per second; half of them ran within {late:.0f} ms")
    table.add_row("call", f"reply after {tally.round_trip * 1000:.0f} ms: the ten largest files")
    found = (("lines", "lines"), ("functions", "functions"), ("classes", "classes"), ("imports", "imports"))
    table.add_row(
        "counted", ", ".join(f"{sum(getattr(one, name) for one in counts):,} {label}" for name, label in found)
    )
    console.print(table)
    show_details(console, tally, folder)


def show_details(console: Console, tally: Tally, folder: Path) -> None:
    """Show the errors of the first dead letters, and the first entries of the reply to the call."""
    for path, failed in list(tally.dead.items())[:SHOWN]:
        console.print(f"dead: {short(path, folder)}: {failed.text}", markup=False, soft_wrap=True)
    line = ", ".join(f"{short(Path(path), folder)} ({size // 1024} KiB)" for path, size in tally.largest[:SHOWN])
    console.print(f"largest: {line}", markup=False, soft_wrap=True)


def short(path: Path, folder: Path) -> str:
    """Return a path relative to the folder, if it is below it."""
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else path.name
