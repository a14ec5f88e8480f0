"""
The demo from its command line to its summary.

Decides the order of the steps, and that everything that was started is stopped, however the demo ends.
"""

from __future__ import annotations

import argparse
import atexit
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rich.console import Console

from amqpworker import AmqpWorkerError, ConfigError
from examples.demo import files
from examples.demo.stage import FOLDER, PROCESSES, THREADS, Stage, stop_left

STOP = ".venv/bin/python -m examples.demo --stop"
INTERRUPTED = 128 + signal.SIGINT


class Interrupts:
    """Raises `KeyboardInterrupt` at the first signal; later ones do not interrupt the cleanup."""

    def __init__(self) -> None:
        self.ignored = self.held = self.came = False

    def listen(self) -> None:
        """Install the handlers."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self)

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        """Handle a signal."""
        if not self.ignored:
            self.ignored = True
            self.came = True
            if not self.held:
                raise KeyboardInterrupt

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Delay a signal until a process that is being started is known."""
        self.held = True
        try:
            yield
        finally:
            self.held = False
        if self.came:
            raise KeyboardInterrupt


def main() -> int:
    """Run the demo and return the exit code."""
    arguments = parse()
    console = Console(highlight=False)
    if arguments.stop:
        console.print("Stopped." if stop_left() else "Nothing was left running.")
        return 0
    interrupts = Interrupts()
    stage = Stage(keep=arguments.keep)

    def clean_up() -> None:
        interrupts.ignored = True
        stage.close()

    # Also at exit: a Ctrl-C between two lines of this function must not leave anything running either.
    # `listen` comes last: until then a signal ends the process (`__main__`), which has not started anything yet.
    atexit.register(clean_up)
    try:
        interrupts.listen()
        return play(console, stage, interrupts, arguments)
    except AmqpWorkerError as error:
        console.print(f"The demo failed: {error}", style="red", markup=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        console.print("\nStopping …")
        return INTERRUPTED
    finally:
        clean_up()


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description="The whole path on real input.")
    parser.add_argument("folder", nargs="?", type=Path, help="source files; default: the standard library")
    parser.add_argument("--keep", action="store_true", help="leave the broker and the workers running")
    parser.add_argument("--stop", action="store_true", help="stop what --keep has left running")
    return parser.parse_args()


def play(console: Console, stage: Stage, interrupts: Interrupts, arguments: argparse.Namespace) -> int:
    """Start everything, do the job, show the results."""
    folder = (arguments.folder or files.standard_library()).resolve()
    found = files.python_files(folder)
    if not found:
        raise ConfigError(f"There is no *.py file in {folder}.")
    if arguments.folder is None:
        found += files.broken_files(FOLDER.absolute() / "broken")
    console.print(f"{len(found)} source files of {folder}", markup=False, soft_wrap=True)

    stage.open()
    console.print(f"RabbitMQ is running; inspect it at {stage.where}", markup=False, soft_wrap=True)
    with interrupts.hold():
        stage.start_workers()
    console.print(
        f"{PROCESSES} worker processes with {THREADS} threads each, and a scheduler; their log: {stage.log}",
        markup=False,
        soft_wrap=True,
    )
    work(console, stage, found, folder)
    if arguments.keep:
        stage.keep()
        console.print(f"Everything is left running. Inspect it at {stage.where}", markup=False, soft_wrap=True)
        console.print(
            f"Dead letters: queue {stage.queue}.dead, 'Get messages'. Stop it with: {STOP}",
            markup=False,
            soft_wrap=True,
        )
    else:
        console.print(
            "Everything is stopped now; make demo KEEP=1 leaves it running, to explore it.",
            markup=False,
            soft_wrap=True,
        )
    return 0


def work(console: Console, stage: Stage, found: list[Path], folder: Path) -> None:
    """Do the job and show its progress, then the results."""
    # An app reads its broker's URL when it is created, so its module is imported only now.
    os.environ.update(AMQPWORKER_URL=stage.url, DEMO_QUEUE=stage.queue)
    from examples.demo import job, screen
    from examples.demo.tasks import app

    with screen.progress(console, len(found)) as show:

        def report(tally: job.Tally) -> None:
            stage.check_workers()
            show(tally)

        try:
            tally = job.run(found, folder, report)
        finally:
            # Before the broker is stopped: otherwise the lost connection would be logged.
            app.producer.close(timeout=1.0)
    screen.summary(console, tally, folder)
