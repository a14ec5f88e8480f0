"""The mistakes that `make mutants` puts into the code fit it: else it would find out only after many minutes."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
MUTANTS = runpy.run_path(str(ROOT / "scripts/mutants.py"))["MUTANTS"]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda one: one.name)
def test_a_mutant_finds_the_text_that_it_replaces_and_the_tests_that_must_notice(mutant: Any) -> None:
    code = (ROOT / mutant.file).read_text()
    assert [code.count(old) for old, _ in mutant.edits] == [1] * len(mutant.edits)
    for test in mutant.tests:
        path, _, name = test.partition("::")
        assert f"def {name}" in (ROOT / path).read_text(), test
