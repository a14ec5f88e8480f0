"""How the results are shown: a table on the terminal, `results.md`, JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from bench.row import Result, median, number

COLORS = {"met": "green", "NOT MET": "red", "skipped": "yellow"}


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
            "\n".join(f"[{COLORS[verdict.word]}]{verdict.word}[/]" for verdict in verdicts),
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
    by_section: dict[str, list[Result]] = {}
    for result in results:
        by_section.setdefault(result.row.section, []).append(result)
    for section, members in by_section.items():
        lines += _section(section, members)
    return "\n".join(lines).rstrip() + "\n"


def _section(name: str, results: Sequence[Result]) -> list[str]:
    """Return what is required of some rows, and then each of them; a section with a name has a heading."""
    lines = [f"## {name}", ""] if name else []
    lines += ["| row | required | reached | |", "| --- | --- | --- | --- |"]
    for result in results:
        lines += [
            f"| {result.row.title} | {verdict.required} | {verdict.reached} | {verdict.word} |"
            for verdict in result.verdicts()
        ]
    level = "###" if name else "##"
    for result in results:
        lines += ["", f"{level} {result.row.title}", "", *_row(result)]
    return [*lines, ""]


def _row(result: Result) -> list[str]:
    lines = ["| side | how | median | each run |", "| --- | --- | --- | --- |"]
    for measure in result.row.measures:
        runs = result.runs.get(measure.side, [])
        each = "<br>".join(" / ".join(number(figures[metric]) for figures in runs) for metric in (runs or [{}])[0])
        lines.append(f"| {measure.side} | {measure.note} | {'<br>'.join(figures_of(result, measure.side))} | {each} |")
    if result.row.note:
        lines += ["", result.row.note]
    lines += [f"\nFailed: {failure}" for failure in result.failures]
    lines += [f"\nSkipped: {side}: {reason}" for side, reason in result.skipped.items()]
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
                "skipped": result.skipped,
            }
            for result in results
        ],
    }


def _finite(figures: dict[str, float]) -> dict[str, float | None]:
    return {metric: None if math.isinf(value) else value for metric, value in figures.items()}
