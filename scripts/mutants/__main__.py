"""
Break the package in ways that would lose or repeat messages, and see that the tests notice each.

Each mutant is a copy of the checkout that has one mistake. The tests that must notice it run on the copy: they have to
pass before and fail after. Two copies are tested side by side: `make test` runs its tests so, too. Exit code 0 means that
every mutant was caught.

Usage: python scripts/mutants [--only NAME] [--list]
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from catalogue import MUTANTS
from mutation import DoesNotApply, Mutant, apply
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
LANES = 2
COPIED = ("amqpworker", "tests", "pyproject.toml", "README.md", "examples", "docs", "scripts", "bench")


def main() -> int:
    """Run the mutants; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="only mutants whose name contains this")
    parser.add_argument("--list", action="store_true", help="list the mutants and stop")
    arguments = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if not arguments.only or arguments.only in mutant.name]
    console = Console()
    if arguments.list:
        for mutant in chosen:
            places = ", ".join(mutation.place for mutation in mutant.mutations)
            console.print(f"{mutant.name}: {places}", highlight=False)
        return 0
    results = run_all(chosen, console)
    table = Table("mutant", "caught", "seconds")
    for mutant, caught, seconds in results:
        table.add_row(mutant.name, "yes" if caught else "[red]NO[/red]", f"{seconds:.0f}")
    console.print(table)
    count = sum(caught for _, caught, _ in results)
    console.print(f"{count} of {len(results)} mutants caught")
    return 0 if count == len(results) else 1


def run_all(chosen: list[Mutant], console: Console) -> list[tuple[Mutant, bool, float]]:
    """Check that the tests pass unbroken, then break the package in each way."""
    results = []
    with (
        copy_of(ROOT, "__pycache__") as unbroken,
        Progress(console=console, disable=not console.is_terminal) as progress,
        ThreadPoolExecutor(LANES) as lanes,
    ):
        bar = progress.add_task("unbroken", total=len(chosen) + 1)
        check_unbroken(unbroken, chosen, console, lanes)
        progress.advance(bar)
        for mutant, caught, seconds in lanes.map(lambda one: try_one(one, unbroken), chosen):
            results.append((mutant, caught, seconds))
            progress.update(bar, description=mutant.name, advance=1)
            if not console.is_terminal:
                console.print(f"{'caught' if caught else 'NOT CAUGHT'}: {mutant.name}", highlight=False)
    return results


def check_unbroken(folder: Path, chosen: list[Mutant], console: Console, lanes: ThreadPoolExecutor) -> None:
    """Stop unless all tests pass; their bytecode stays in the folder, for the copies."""
    tests = sorted({test for mutant in chosen for test in mutant.tests})
    parts = [part for part in (tests[number::LANES] for number in range(LANES)) if part]
    for done in lanes.map(lambda part: run_tests(folder, part, folder), parts):
        if done.returncode != 0:
            console.print(done.stdout[-4000:], highlight=False, markup=False)
            console.print("The tests fail on the unbroken package, so no mutant was tried.")
            sys.exit(1)


def try_one(mutant: Mutant, unbroken: Path) -> tuple[Mutant, bool, float]:
    """Return whether the tests notice the mutant, and how long that took."""
    started = time.monotonic()
    with copy_of(unbroken) as folder:
        break_copy(mutant, folder)
        caught = run_tests(folder, list(mutant.tests), unbroken).returncode == 1
    return mutant, caught, time.monotonic() - started


@contextmanager
def copy_of(original: Path, *left_out: str) -> Iterator[Path]:
    """Copy a checkout, for as long as the block runs. Times of files stay, so that bytecode is still taken for current."""
    with tempfile.TemporaryDirectory(prefix="amqpworker-mutant-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        for entry in COPIED:
            source = original / entry
            if source.is_dir():
                shutil.copytree(source, folder / entry, ignore=shutil.ignore_patterns(".venv", ".build", *left_out))
            elif source.exists():
                shutil.copy2(source, folder / entry)
        yield folder


def break_copy(mutant: Mutant, folder: Path) -> None:
    """Put the mistake into the copy; that it does not fit is an error of the catalogue."""
    try:
        changed = apply(mutant, folder / "amqpworker")
    except DoesNotApply as error:
        sys.exit(f"mutant {mutant.name!r}: {error}")
    for path, text in changed.items():
        path.write_text(text, encoding="utf-8")


def run_tests(folder: Path, tests: list[str], unbroken: Path) -> subprocess.CompletedProcess[str]:
    """Run tests on a copy, which hides the installed package; only the unbroken one keeps bytecode, and what hypothesis knows."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder),
        "HYPOTHESIS_STORAGE_DIRECTORY": str(unbroken / ".hypothesis"),
    }
    if folder != unbroken:
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
    return subprocess.run(  # noqa: S603 - our own tests
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )


if __name__ == "__main__":
    sys.exit(main())
