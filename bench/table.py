"""How the results are shown: a table on the terminal, `results.md`, JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from bench.row import Result, median, number

MET, NOT_MET = "met", "NOT MET"


def figures_of(result: Result, side: str) -> list[str]:
    """Return a side's medians, each with its metric."""
    runs = result.runs.get(side)
    if not runs:
        return ["–"]
    medians = {metric: median(result.runs, side, metric) for metric in runs[0]}
    return ["never" if math.isinf(value) else f"{number(value)} {metric}" for metric, value in medians.items()]


def terminal(results: Sequence[Result]) -> Table:
    """Return the table for the terminal."""
    table = Table("row", "side", "figures (median)", "required", "reached", "", show_lines=True)
    for result in results:
        sides = [(measure.side, ", ".join(figures_of(result, measure.side))) for measure in result.row.measures]
        verdicts = result.verdicts()
        table.add_row(
            result.row.title,
            "\n".join(side for side, _ in sides),
            "\n".join(figures for _, figures in sides),
            "\n".join(verdict.required for verdict in verdicts),
            "\n".join(verdict.reached for verdict in verdicts),
            "\n".join("[green]met[/]" if verdict.met else "[red]NOT MET[/]" for verdict in verdicts),
        )
    return table


def markdown(results: Sequence[Result], facts: dict[str, str]) -> str:
    """Return `results.md`."""
    lines = [
        "# Results of the benchmark",
        "",
        "Made by `make bench`; what is measured and how: [README.md](README.md).",
        "",
    ]
    lines += ["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in facts.items()), ""]
    lines += ["| row | required | reached | |", "| --- | --- | --- | --- |"]
    for result in results:
        lines += [
            f"| {result.row.title} | {verdict.required} | {verdict.reached} | {MET if verdict.met else NOT_MET} |"
            for verdict in result.verdicts()
        ]
    for result in results:
        lines += ["", f"## {result.row.title}", "", *_row(result)]
    return "\n".join(lines) + "\n"


def _row(result: Result) -> list[str]:
    lines = ["| side | how | median | each run |", "| --- | --- | --- | --- |"]
    for measure in result.row.measures:
        runs = result.runs.get(measure.side, [])
        each = "<br>".join(" / ".join(number(figures[metric]) for figures in runs) for metric in (runs or [{}])[0])
        lines.append(f"| {measure.side} | {measure.note} | {'<br>'.join(figures_of(result, measure.side))} | {each} |")
    if result.row.note:
        lines += ["", result.row.note]
    lines += [f"\nFailed: {failure}" for failure in result.failures]
    return lines


def plain(results: Sequence[Result], facts: dict[str, str]) -> dict[str, Any]:
    """Return everything as JSON values."""
    return {
        "facts": facts,
        "rows": [
            {
                "name": result.row.name,
                "title": result.row.title,
                "runs": {side: [_finite(figures) for figures in runs] for side, runs in result.runs.items()},
                "requirements": [vars(verdict) for verdict in result.verdicts()],
                "failures": result.failures,
            }
            for result in results
        ],
    }


def _finite(figures: dict[str, float]) -> dict[str, float | None]:
    return {metric: None if math.isinf(value) else value for metric, value in figures.items()}
