"""The tests that docs/testing.md shows, run as they are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.docs import ROOT, blocks


def test_the_tests_of_the_page_pass(tmp_path: Path) -> None:
    (code,) = blocks(ROOT / "docs/testing.md", "python")
    (tmp_path / "test_numbers.py").write_text(code)
    command = [sys.executable, "-m", "pytest", "-q", "--rootdir", str(tmp_path), str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert "2 passed" in done.stdout, done.stdout
