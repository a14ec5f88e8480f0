"""What tests read of a program that still writes."""

from __future__ import annotations

from pathlib import Path

from tests.programs import whole_lines


def test_a_line_that_is_half_written_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    assert whole_lines(path) == []
    path.write_text("begin one 1\nend o")
    assert whole_lines(path) == ["begin one 1"]
    path.write_text("begin one 1\nend one 1\n")
    assert whole_lines(path) == ["begin one 1", "end one 1"]
