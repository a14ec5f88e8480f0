"""
The program `amqpworker` as people run it at a terminal: how long it runs, and the most memory that it has.

Its output goes into files, so that nothing waits for a reader. What the figures are compared with is up to the rows.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.context import Slot
from bench.places import OWN_PROGRAM, ROOT, SideFailed, environment, peak

APP = "bench.sides.ours:app"
LOOK = 0.02
PATIENCE = 600.0
_LONGEST = re.compile(r"was late by at most ([0-9.]+) s")


class Command:
    """A command that runs, or has run."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self.output = folder / "out"
        self.errors = ""
        """What it printed as errors, once it has ended."""
        self.peak = 0
        """The most resident bytes that it has had."""
        self.seconds = 0.0
        """From its start to its end."""
        self._folder = folder
        self._process = process
        self._began = time.monotonic()

    @property
    def is_running(self) -> bool:
        """Whether it has not ended; asking notes its memory."""
        self.peak = max(self.peak, peak(self._process.pid))
        if self._process.poll() is None:
            return True
        self.seconds = self.seconds or time.monotonic() - self._began
        self.errors = (self._folder / "err").read_text()
        return False

    def kill(self) -> None:
        """End it as the kernel does that is short of memory."""
        self._process.kill()
        self._process.wait()

    def wait(self) -> None:
        """
        Wait for its end.

        Raises:
            SideFailed: it ended with an error, or not in time.
        """
        while self.is_running:
            if time.monotonic() - self._began > PATIENCE:
                raise SideFailed(f"{self._process.args} took longer than {PATIENCE:.0f} s: {self.errors}")
            time.sleep(LOOK)
        if self._process.returncode:
            raise SideFailed(f"{self._process.args} ended with {self._process.returncode}: {self.errors}")

    def longest_walk(self) -> float:
        """Return how long a level was read at most, in seconds, as `amqpworker pending` reports it."""
        found = _LONGEST.search(self.errors)
        if found is None:
            raise SideFailed(f"the command reported no time: {self.errors}")
        return float(found[1])


@contextmanager
def started(place: Slot, *arguments: str) -> Iterator[Command]:
    """Run a command for the time of a block; what still runs then is killed."""
    settings = environment({"BENCH_URL": place.url, "AMQPWORKER_APP": APP})
    with (place.folder / "out").open("wb") as output, (place.folder / "err").open("wb") as errors:
        process = subprocess.Popen(
            [OWN_PROGRAM, *arguments],
            cwd=ROOT,
            env=settings,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
        )
        command = Command(process, place.folder)
        try:
            yield command
        finally:
            command.kill()


def done(place: Slot, *arguments: str) -> Command:
    """Run a command to its end."""
    with started(place, *arguments) as command:
        command.wait()
    return command
