"""How rows that send are measured: one fresh process each, which prints messages per second (see `sides/send_*`)."""

from __future__ import annotations

from bench.context import Bench
from bench.places import OWN_PYTHON, PEER_PYTHON, run
from bench.row import Figures, Measure


def _measure(bench: Bench, command: list[str], count: int) -> Figures:
    with bench.place() as place:
        bench.broker.wait_until_idle()
        return {"messages/s": float(run([*command, str(bench.count(count))], {"BENCH_URL": place.url}))}


def ours(mode: str, count: int) -> Measure:
    """Return the measure of amqpworker's `one`, `threads` or `many`."""
    command = [OWN_PYTHON, "-m", "bench.sides.send_ours", mode]
    return Measure("amqpworker", "quorum queue, confirmed, mandatory", lambda bench: _measure(bench, command, count))


def pika(count: int) -> Measure:
    """Return the measure of pika's blocking connection."""
    command = [OWN_PYTHON, "-m", "bench.sides.send_pika"]
    note = "BlockingConnection, one thread, amqpworker's queue, confirmed, mandatory"
    return Measure("pika", note, lambda bench: _measure(bench, command, count))


def dramatiq(count: int) -> Measure:
    """Return the measure of Dramatiq's publishes."""
    command = [PEER_PYTHON, "-m", "bench.sides.send_dramatiq"]
    return Measure("Dramatiq", "classic queue, not confirmed", lambda bench: _measure(bench, command, count))
