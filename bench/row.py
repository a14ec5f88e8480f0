"""
What a row of the table is: sides that are measured, and what is required of their figures.

A figure is the median of the runs, unless a requirement asks for the worst.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench.stopwatch import Figures

if TYPE_CHECKING:
    from bench.context import Bench

Runs = Mapping[str, Sequence[Figures]]
"""All runs of a row: side to its figures, run by run."""


@dataclass(frozen=True)
class Measure:
    """One side of a row."""

    side: str
    note: str
    run: Callable[[Bench], Figures]


@dataclass(frozen=True)
class Verdict:
    """What a requirement asked for, and what came."""

    required: str
    reached: str
    met: bool
    skipped: bool = False

    @property
    def word(self) -> str:
        """The verdict in a word or two."""
        return "skipped" if self.skipped else "met" if self.met else "NOT MET"


def median(runs: Runs, side: str, metric: str) -> float:
    """Return the median of a side's figures."""
    return statistics.median(figures[metric] for figures in runs[side])


@dataclass(frozen=True)
class Ratio:
    """One side's figure has to be at least (or at most) so many times another's; with neither it is only shown."""

    to: str
    metric: str
    at_least: float | None = None
    at_most: float | None = None
    of: str = "amqpworker"

    def required(self) -> str:
        """Return what is required, for people."""
        return f"{self.of}: {_bound(self.at_least, self.at_most)} × {self.to} in {self.metric}"

    def judge(self, runs: Runs) -> Verdict:
        """Compare the medians."""
        ratio = median(runs, self.of, self.metric) / median(runs, self.to, self.metric)
        return Verdict(self.required(), f"{ratio:.2f} ×", _met(ratio, self.at_least, self.at_most))


@dataclass(frozen=True)
class Limit:
    """One side's figure has to be at least (or at most) a number."""

    metric: str
    at_least: float | None = None
    at_most: float | None = None
    of: str = "amqpworker"
    worst: bool = False

    def required(self) -> str:
        """Return what is required, for people."""
        return f"{self.of}: {_bound(self.at_least, self.at_most)} {self.metric}"

    def judge(self, runs: Runs) -> Verdict:
        """Compare the median, or the largest figure of all runs."""
        values = [figures[self.metric] for figures in runs[self.of]]
        value = max(values) if self.worst else statistics.median(values)
        return Verdict(self.required(), number(value), _met(value, self.at_least, self.at_most))


@dataclass(frozen=True)
class Either:
    """One of several requirements has to be met; all are judged and shown. They are of the same side."""

    requirements: tuple[Ratio | Limit, ...]

    @property
    def of(self) -> str:
        """The side that they are of."""
        return self.requirements[0].of

    def required(self) -> str:
        """Return what is required, for people."""
        return ", or ".join(requirement.required() for requirement in self.requirements)

    def judge(self, runs: Runs) -> Verdict:
        """Judge all of them."""
        verdicts = [requirement.judge(runs) for requirement in self.requirements]
        reached = "; ".join(verdict.reached for verdict in verdicts)
        return Verdict(self.required(), reached, any(verdict.met for verdict in verdicts))


@dataclass(frozen=True)
class Row:
    """One row: what is measured, what is required, and what a reader has to know."""

    name: str
    title: str
    measures: tuple[Measure, ...]
    requirements: tuple[Ratio | Limit | Either, ...]
    note: str = ""
    section: str = ""
    rounds: int = 1
    """How often each run is done, if one run shows too little."""
    once: bool = False
    """Whether there is one run only, however many are wanted of other rows, since it takes minutes."""


@dataclass
class Result:
    """What became of a row."""

    row: Row
    runs: dict[str, list[Figures]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    def verdicts(self) -> list[Verdict]:
        """Judge each requirement; one whose sides could not be measured is not met, unless they were skipped."""
        verdicts = []
        for requirement in self.row.requirements:
            if reason := self.skipped.get(requirement.of):
                verdicts.append(Verdict(requirement.required(), reason, met=False, skipped=True))
                continue
            try:
                verdicts.append(requirement.judge(self.runs))
            except (KeyError, statistics.StatisticsError, ZeroDivisionError):
                verdicts.append(Verdict(requirement.required(), "not measured", False))
        return verdicts


def number(value: float) -> str:
    """Return a figure with three digits that count, and no fewer than before the point."""
    if math.isinf(value):
        return "never"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def _bound(at_least: float | None, at_most: float | None) -> str:
    if at_least is None and at_most is None:
        return "any"
    return f"≥ {at_least:g}" if at_least is not None else f"≤ {at_most:g}"


def _met(value: float, at_least: float | None, at_most: float | None) -> bool:
    if at_least is not None and value < at_least:
        return False
    return at_most is None or value <= at_most
