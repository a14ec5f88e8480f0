"""Tasks that wait for an hour, and the list of them: what the rows about pending tasks have in common."""

from __future__ import annotations

import time
from collections.abc import Callable

from bench.commands import LOOK, Command, started
from bench.context import Slot
from bench.places import OWN_PYTHON, SideFailed, run

HOUR = 3600.0
_PATIENCE = 900.0
_BLOCK = 1 << 20
_MEMBER = b'{"id": "'


def fill(place: Slot, first: int, count: int) -> float:
    """Send tasks that are due in an hour, with the numbers from `first` on, all confirmed; return how many per second."""
    command = [OWN_PYTHON, "-m", "bench.sides.waiting", str(first), str(count), str(HOUR)]
    return float(run(command, {"BENCH_URL": place.url}, _PATIENCE))


def listed(place: Slot, least: int, meanwhile: Callable[[], None] = lambda: None) -> Command:
    """
    Run `amqpworker pending list --json`, and do something again and again `meanwhile`.

    Raises:
        SideFailed: it failed, or listed fewer messages than `least`.
    """
    with started(place, "pending", "list", "--json", "--yes") as command:
        while command.is_running:
            meanwhile()
            time.sleep(LOOK)
        command.wait()
    if (count := _members(command)) < least:
        raise SideFailed(f"{count} of {least} messages are listed: {command.errors}")
    return command


def _members(command: Command) -> int:
    """Return how many objects the array has that was printed, each on a line of its own."""
    with command.output.open("rb") as lines:
        return sum(line.startswith(_MEMBER) for line in lines)
