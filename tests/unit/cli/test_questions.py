"""Questions before what cannot be undone: only a person at a terminal answers them."""

from __future__ import annotations

import io

import pytest

from amqpworker.cli.questions import agreed
from amqpworker.errors import ConfigError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "agrees"), [("y\n", True), ("n\n", False), ("\n", False), ("perhaps\ny\n", True)])
def test_the_answer_of_a_person_counts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: str, agrees: bool
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    assert agreed("Drop it?", yes=False) == agrees
    assert "Drop it? [y/N]" in capsys.readouterr().err


def test_a_program_has_to_answer_with_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    with pytest.raises(ConfigError, match=r"Drop it\? Standard input is not a terminal: confirm with --yes"):
        agreed("Drop it?", yes=False)
    assert agreed("Drop it?", yes=True)
