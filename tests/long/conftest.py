"""
Soaks: many faults, one after the other, on a system under load, and a ledger that must balance at the end.

The short form, seconds of faults, is what plain pytest runs; SOAK_SECONDS makes it longer (`make long`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from tests.acceptance.conftest import make_scene
from tests.conftest import quicken, running_node
from tests.nodes import Node

__all__ = ["make_scene"]

LONG = "SOAK_SECONDS" in os.environ
SECONDS = float(os.environ.get("SOAK_SECONDS", "10"))
TIMEOUT = 3 * SECONDS + 300  # for a soak that hangs; a busy machine takes longer
told: list[str] = []
"""One line for each soak: a row of the table in docs/long-run.md."""


@pytest.fixture
def own_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node that the soak may kill and freeze."""
    with running_node(tmp_path_factory.mktemp("own")) as own:
        quicken(own)
        yield own


def tell(soak: str, *cells: str) -> None:
    """Note the figures of a soak, for the end of the run."""
    told.append(" | ".join(("", f"{datetime.now(UTC):%Y-%m-%d}", soak, *cells, "")).strip())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the rows."""
    if told:
        terminalreporter.section("rows for docs/long-run.md")
        for line in told:
            terminalreporter.write_line(line)
