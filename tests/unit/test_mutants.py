"""The mistakes that `make mutants` puts into the code fit it: else it would find out only after many minutes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts/mutants"))

from catalogue import MUTANTS  # noqa: E402 - found by the line above
from mutation import DoesNotApply, Mutant, Mutation, apply  # noqa: E402


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda one: one.name)
def test_a_mutant_fits_the_package_and_the_tests_that_must_notice_it_exist(mutant: Mutant) -> None:
    for path, text in apply(mutant, ROOT / "amqpworker").items():
        compile(text, path, "exec")
    for test in mutant.tests:
        path, _, name = test.partition("::")
        assert f"def {name}" in (ROOT / path).read_text(), test


CODE = """
LEVELS = (1, 2)

class Lane:
    def on_lost(self, kept, last):
        # a comment
        for one in kept:
            self.resend(one)
        kept.clear()
        return kept if last else None

def on_lost():
    return 1
"""


def mutated(tmp_path: Path, *mutations: Mutation, code: str = CODE) -> str:
    (tmp_path / "lane.py").write_text(code)
    (text,) = apply(Mutant("", (), mutations), tmp_path).values()
    return text


@pytest.mark.parametrize(
    ("mutation", "expected"),
    [
        (Mutation("Lane.on_lost", "X if L else None", "X"), "return kept\n"),
        (Mutation("Lane.on_lost", "X.clear()", "X.clear()\nX.clear()"), "kept.clear()\n        kept.clear()\n"),
        (Mutation("Lane.on_lost", "for A in B:\n    self.resend(A)\nB.clear()", "pass"), "last):\n        pass\n"),
        (Mutation("on_lost", "return 1", "return 2"), "return 2"),
        (Mutation("LEVELS", "2", "*(3, 4)"), "LEVELS = (1, *(3, 4))"),
    ],
)
def test_a_mutation_changes_what_matches_in_its_place_wherever_that_is(
    tmp_path: Path, mutation: Mutation, expected: str
) -> None:
    assert expected in mutated(tmp_path, mutation)


def test_names_of_variables_layout_and_comments_are_free_to_change(tmp_path: Path) -> None:
    mutation = Mutation("Lane.on_lost", "for A in B:\n    self.resend(A)\nB.clear()", "B.clear()")
    other = CODE.replace("kept", "messages").replace("a comment", "another").replace("(1, 2)", "(1,\n 2)")
    assert mutated(tmp_path, mutation, code=other) == mutated(tmp_path, mutation).replace("kept", "messages")


@pytest.mark.parametrize(
    ("mutation", "reason"),
    [
        (Mutation("Lane.on_found", "X", "X"), "Lane.on_found is defined in 0 places, not in one"),
        (Mutation("Lane.on_lost", "X.append()", "None"), "'X.append()' matches 0 times in Lane.on_lost, not once"),
        (Mutation("Lane.on_lost", "X if X else None", "X"), "matches 0 times"),
        (Mutation("Lane.on_lost", "kept", "None"), "matches 3 times"),
    ],
)
def test_a_mutation_that_does_not_fit_exactly_once_is_an_error(tmp_path: Path, mutation: Mutation, reason: str) -> None:
    with pytest.raises(DoesNotApply, match=reason.replace("(", r"\(").replace(")", r"\)")):
        mutated(tmp_path, mutation)
