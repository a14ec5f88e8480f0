"""The tests that docs/testing.md shows, run as they are."""

from __future__ import annotations

from pathlib import Path

from tests.docs import ROOT, blocks
from tests.plugin import run_pytest

PAGE = ROOT / "docs/testing.md"


def test_the_tests_of_the_page_pass(tmp_path: Path) -> None:
    for code in blocks(PAGE, "python") + blocks(PAGE, "toml"):
        name = code.partition("\n")[0].removeprefix("# ")
        (tmp_path / name).write_text(code)
    done = run_pytest(tmp_path, "-q")
    assert "8 passed" in done.stdout, done.stdout
