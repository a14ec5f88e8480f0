"""One task that is due in 2 s behind 20,000 that are due in an hour: no worker may hold them in its memory."""

from __future__ import annotations

import math
import time

from bench.consuming import CELERY, DRAMATIQ, OURS, Shape, Side
from bench.context import Bench
from bench.places import SideFailed, run, running
from bench.row import Figures, Limit, Measure, Row
from bench.tally import Tally

COUNT = 20_000
SOON = 2.0
PATIENCE = 8.0
WARM = 500
"""Tasks that run before the memory is first measured."""


def measure(bench: Bench, side: Side) -> Figures:
    """Measure how late the task begins (never: not within 8 s), and what the worker's memory grows by."""
    count = bench.count(COUNT)
    with bench.place() as place:
        tally = Tally.create(place.folder / "tally", count + 2)
        told = {"BENCH_URL": place.url, "BENCH_TALLY": str(tally.path), **side.environment}
        run([side.python, "-m", "bench.sides.fill", side.module, "empty", str(WARM)], told)
        with running(side.commands(Shape(prefetch=None)), told, place.folder / "log") as worker:
            if not _wait_for(tally, WARM - 1, 60):
                raise SideFailed(f"{side.name} never ran a task:\n{worker.tail()}")
            tally.clear()
            time.sleep(1)
            before = worker.memory()
            due = float(run([side.python, "-m", "bench.sides.behind", side.module, str(count), str(SOON)], told))
            began = _wait_for(tally, count + 1, due + PATIENCE - time.time())
            worker.check()
            grown = worker.memory() - before
        late = (began - due) * 1000 if began else math.inf
    return {"ms late": late, "MiB more": grown / 2**20}


def _wait_for(tally: Tally, index: int, patience: float) -> float:
    """Return when this task ended, 0 where it has not."""
    deadline = time.monotonic() + patience
    while not tally.ended[index] and time.monotonic() < deadline:
        time.sleep(0.01)
    return tally.ended[index] / 1e9


def _of(side: Side) -> Measure:
    return Measure(side.name, side.note, lambda bench: measure(bench, side))


ROW = Row(
    "behind",
    "One task due in 2 s behind 20,000 due in an hour",
    (_of(OURS), _of(DRAMATIQ), _of(CELERY)),
    (Limit("ms late", at_most=100, worst=True), Limit("MiB more", at_most=2, worst=True)),
    f"Memory: resident, all of the worker's processes. “Never” is not within {PATIENCE:.0f} s of being due.",
)
