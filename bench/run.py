"""
The benchmark's entry: `python -m bench.run`; see README.md.

Decides the order: row by row, and in each row run by run, one side after the other, so that a machine that becomes
slower does so for all of them.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench import rows, table
from bench.broker import Broker, private_node
from bench.context import Bench
from bench.facts import facts
from bench.places import BENCH, SideFailed, SideSkipped, prepare
from bench.row import Result, Row
from bench.stores import Servers

RESULTS = BENCH / "results.md"


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    names = [row.name for row in rows.load()] + [section.lower() for section in rows.SECTIONS]
    parser = argparse.ArgumentParser(
        prog="python -m bench.run",
        description="Measure amqpworker, its peers and bare clients side by side on one node.",
        epilog="example: python -m bench.run --only empty --only go --runs 1 --scale 0.1",
    )
    parser.add_argument(
        "--only",
        action="append",
        metavar="ROW",
        choices=names,
        help=f"one of {', '.join(names)} (the last {len(rows.SECTIONS)}: all rows of a section)",
    )
    parser.add_argument("--side", action="append", metavar="SIDE", help="measure only these sides of a row")
    parser.add_argument("--runs", type=int, default=3, help="how often each side is measured (3)")
    parser.add_argument("--scale", type=float, default=1.0, help="times the number of messages (1.0)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--write", type=Path, help="write the results there; a full run writes bench/results.md")
    parser.add_argument("--url", help="measure on this node instead of a private one (needs --management)")
    parser.add_argument("--management", help="its management URL, http://USER:PASSWORD@HOST:PORT")
    parser.add_argument("--pid", type=int, help="its process, where it runs here: to wait until it is idle")
    told = parser.parse_args(arguments)
    if told.url and not told.management:
        parser.error("--url needs --management")
    return told


@contextmanager
def node(told: argparse.Namespace) -> Iterator[Broker]:
    """Give the node to measure on."""
    if told.url:
        yield Broker(told.url, told.management, told.pid)
    else:
        with private_node() as broker:
            yield broker


def measure(row: Row, bench: Bench, runs: int, sides: Sequence[str] | None, progress: Progress) -> Result:
    """Measure all sides of a row, in turn; a side that fails once, or is skipped, is not tried again."""
    result = Result(row)
    runs = 1 if row.once else runs * row.rounds
    measures = [measure for measure in row.measures if not sides or measure.side in sides]
    bar = progress.add_task(row.name, total=runs * len(measures), what="")
    failed: set[str] = set()
    for number in range(runs):
        for measure in measures:
            progress.update(bar, what=f"{measure.side}, run {number + 1}")
            if measure.side not in failed and measure.side not in result.skipped:
                try:
                    result.runs.setdefault(measure.side, []).append(measure.run(bench))
                except SideSkipped as error:
                    result.skipped[measure.side] = str(error)
                except SideFailed as error:
                    failed.add(measure.side)
                    result.failures.append(f"{measure.side}: {error}")
                except Exception as error:  # noqa: BLE001 - an hour of other figures must not be lost for it
                    failed.add(measure.side)
                    result.failures.append(f"{measure.side}: {type(error).__name__}: {error}")
                    traceback.print_exc()
            progress.advance(bar)
    for side in failed.union(result.skipped):
        result.runs.pop(side, None)
    progress.update(bar, what="")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 1 where a requirement is not met."""
    told = options(arguments)
    console = Console(stderr=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that workers and node are ended then, too
    chosen = [row for row in rows.load() if not told.only or {row.name, row.section.lower()} & set(told.only)]
    if any(row.section not in rows.WITHOUT_PEERS for row in chosen):
        prepare()
    columns = (
        TextColumn("{task.description:>13}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[what]}"),
    )
    with node(told) as broker, closing(Servers()) as servers, Progress(*columns, console=console) as progress:
        known = facts(broker, told.runs, told.scale)
        bench = Bench(broker, told.scale, servers)
        results = [measure(row, bench, told.runs, told.side, progress) for row in chosen]
    for result in results:
        for failure in result.failures:
            console.print(f"{result.row.name}: {failure}", style="red", markup=False)
        for side, reason in result.skipped.items():
            console.print(f"{result.row.name}: {side} was skipped: {reason}", style="yellow", markup=False)
    if told.json:
        print(json.dumps(table.plain(results, known), indent=1))
    else:
        Console(width=None if sys.stdout.isatty() else 180).print(table.terminal(results))
    complete = not told.only and not told.side and told.scale == 1
    if target := told.write or (RESULTS if complete else None):
        target.write_text(table.markdown(results, known))
    return 0 if all(verdict.met or verdict.skipped for result in results for verdict in result.verdicts()) else 1


if __name__ == "__main__":
    sys.exit(main())
