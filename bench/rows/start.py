"""How soon a fresh process has sent its first message: the import, and connecting and sending."""

from __future__ import annotations

from bench.context import Bench
from bench.places import OWN_PYTHON, run
from bench.row import Figures, Limit, Measure, Ratio, Row

PROCESSES = 5
# Not `import amqpworker`: that alone loads nothing.
OURS, PIKA = "from amqpworker import App", "import pika"


def _import(statement: str) -> float:
    code = f"import time; start = time.perf_counter(); {statement}; print(time.perf_counter() - start)"
    return _typical([OWN_PYTHON, "-c", code], {})


def _typical(command: list[str], told: dict[str, str]) -> float:
    """Return the median of some fresh processes."""
    seconds = sorted(float(run(command, told)) for _ in range(PROCESSES))
    return seconds[PROCESSES // 2]


def _first_send(bench: Bench, which: str) -> float:
    command = [OWN_PYTHON, "-m", "bench.sides.first_send", which]
    with bench.place() as place:
        told = {"BENCH_URL": place.url}
        run([OWN_PYTHON, "-m", "bench.sides.first_send", "ours"], told)  # leaves the topology in place
        return _typical(command, told)


def ours(bench: Bench) -> Figures:
    """Measure amqpworker."""
    return {"s import": _import(OURS), "s first send": _first_send(bench, "ours")}


def pika(bench: Bench) -> Figures:
    """Measure pika alone."""
    return {"s import": _import(PIKA), "s first send": _first_send(bench, "pika")}


ROW = Row(
    "start",
    "Import of amqpworker; first send of a process, topology in place",
    (
        Measure("amqpworker", "send() of a fresh process", ours),
        Measure("bare pika", "BlockingConnection, one confirmed publish", pika),
    ),
    (Limit("s import", at_most=0.25), Ratio("bare pika", "s first send", at_most=2)),
    "The first send is reckoned with the import done, on both sides; `from amqpworker import App` brings pika along.",
)
