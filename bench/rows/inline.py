"""A hundred tests with the fixture `amqp_inline`, and a hundred that do nothing: what the first take longer."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

from bench.context import Bench
from bench.places import OWN_PYTHON, SideFailed, run
from bench.row import Figures, Limit, Measure, Row
from bench.rows import RESULTS

TESTS = 100
PAIRS = 3
BEYOND = "s beyond pytest's own start"

SHOP = """\
from amqpworker import App, current

app = App("amqp://127.0.0.1:1/", results="sqlite:///results.db")


@app.task(queue="numbers", retry=[60])
def double(number: int, fail: int = 0) -> int:
    if current().attempt <= fail:
        raise OSError("not yet")
    return 2 * number
"""
INLINE = """\
import pytest

from shop import double

numbers = pytest.mark.parametrize("number", range(25))


@numbers
def test_a_result(amqp_inline, number):
    assert double.send(number).result() == 2 * number


@numbers
def test_a_call(amqp_inline, number):
    assert double.call(number) == 2 * number


@numbers
def test_a_delay(amqp_inline, number):
    sent = double.options(delay=30).send(number)
    amqp_inline.advance(30)
    assert sent.result() == 2 * number


@numbers
def test_a_dead_letter_after_a_retry(amqp_inline, number):
    double.send(number, fail=2)
    amqp_inline.advance(60)
    (letter,) = amqp_inline.dead(double)
    assert letter.error == "not yet"
"""
NOTHING = """\
import pytest

numbers = pytest.mark.parametrize("number", range(25))
"""
NOTHING += "".join(f"\n\n@numbers\ndef test_{number}(number):\n    pass\n" for number in range(4))


def ours(bench: Bench) -> Figures:
    """Run both some times, in turn."""
    with bench.place() as place:
        (place.folder / "pytest.ini").write_text("[pytest]\namqpworker_app = shop:app\n")
        (place.folder / "shop.py").write_text(SHOP)
        pairs = [
            (_seconds(place.folder, "inline", INLINE), _seconds(place.folder, "nothing", NOTHING)) for _ in range(PAIRS)
        ]
    return {
        BEYOND: statistics.median(inline - nothing for inline, nothing in pairs),
        "s of pytest": statistics.median(inline for inline, _ in pairs),
    }


def _seconds(folder: Path, name: str, text: str) -> float:
    """Return how long pytest takes for a file of tests, from its start to its end."""
    file = folder / f"test_{name}.py"
    file.write_text(text)
    options = ["-q", "-p", "no:cacheprovider", "--rootdir", str(folder), "-c", str(folder / "pytest.ini")]
    start = time.perf_counter()
    printed = run([OWN_PYTHON, "-m", "pytest", *options, str(file)], {})
    seconds = time.perf_counter() - start
    if f"{TESTS} passed" not in printed:
        raise SideFailed(printed)
    return seconds


ROW = Row(
    "inline",
    "100 tests with the fixture `amqp_inline`",
    (Measure("amqpworker", "sends, calls, delays, and retries until a dead letter, 25 tests of each", ours),),
    (Limit(BEYOND, at_most=1),),
    "Less the time of pytest for 100 tests that do nothing, in a file that imports neither amqpworker nor an app: the import counts.",
    section=RESULTS,
)
