"""Two processes against a raw socket client that only consumes and acknowledges: how near the broker's own limit."""

from __future__ import annotations

import json

from bench.consuming import OURS, Shape, rate
from bench.context import Bench
from bench.load import QUEUE
from bench.places import OWN_PYTHON, SideFailed, run, running
from bench.row import Figures, Measure, Ratio, Row
from bench.tally import Tally

COUNT = 150_000
PREFETCH = 256
PATIENCE = 120.0
NOTE = "pure Python, decodes nothing, one ack for each read"


def raw(processes: int) -> Measure:
    """Return the measure of N raw clients on one queue."""

    def measure(bench: Bench) -> Figures:
        count = bench.count(COUNT)
        with bench.place() as place:
            told = {"BENCH_URL": place.url, "BENCH_PROCESSES": str(processes)}
            run([OWN_PYTHON, "-m", "bench.sides.fill", "bench.sides.bare", "empty", str(count)], told)
            bench.broker.wait_until_idle()
            told["BENCH_TALLY"] = str(Tally.create(place.folder / "tally", 1).path)
            command = [OWN_PYTHON, "-m", "bench.sides.raw", QUEUE, str(PREFETCH)]
            with running([command] * processes, told, place.folder / "log") as clients:
                clients.wait(PATIENCE)
                answers = [json.loads(line) for line in clients.lines() if line.startswith("[")]
        if sum(taken for taken, _, _ in answers) != count:
            raise SideFailed(f"the raw clients took {answers}, which is not {count} in all")
        begins, ends = [first for _, first, _ in answers if first], [last for _, _, last in answers]
        return {"tasks/s": count / (max(ends) - min(begins)) * 1e9}

    name = "raw socket" if processes == 1 else f"raw socket × {processes}"
    return Measure(name, NOTE, measure)


ROW = Row(
    "raw",
    "2 processes × 8 threads, prefetch 256, against a raw socket client",
    (rate(OURS, "empty", COUNT, Shape(processes=2, threads=8, prefetch=PREFETCH)), raw(1), raw(2)),
    (Ratio("raw socket", "tasks/s", at_least=0.45),),
    "The requirement is against one raw client; two of them are shown beside it.",
)
