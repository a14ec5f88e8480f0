"""
What type checkers report of a user's code: the programs in tests/typing, under mypy and pyright in their strict modes.

A line that is wrong has a comment with the rules of both checkers. An error without a comment is reported, and so is a
comment without its error.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.docs import ROOT, blocks

PYRIGHT = {
    "typeCheckingMode": "strict",
    "enableTypeIgnoreComments": False,  # those are for mypy
    "reportUnnecessaryTypeIgnoreComment": "error",
    "reportUnusedVariable": "none",
}
CHECKED_TOO = """\
from shop import welcome
welcome.send("5")
welcome.send(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Copy the programs out of the checkout, whose settings are not the user's, and add one that both checkers refuse."""
    shutil.copytree(ROOT / "tests/typing", tmp_path, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    (page,) = blocks(ROOT / "docs/values.md", "python")[-1:]
    (tmp_path / "page.py").write_text(page)
    (tmp_path / "checked_too.py").write_text(CHECKED_TOO)
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(PYRIGHT))
    return tmp_path


def output_of(folder: Path, *arguments: str) -> str:
    # Without the variables that have pyright download another version of itself, or of Node.
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYRIGHT_", "MYPY"))}
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env=env,
        text=True,
        capture_output=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 1, f"{arguments[0]} ended with {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout


def shown(errors: list[dict[str, Any]]) -> str:
    return "\n".join(str(error) for error in errors)


def test_mypy_reports_what_is_wrong_in_a_user_s_code_and_nothing_else(folder: Path) -> None:
    output = output_of(folder, "mypy", "--strict", "--output=json", "--cache-dir=.mypy_cache", ".")
    errors = [error for error in map(json.loads, output.splitlines()) if error["severity"] == "error"]
    found = [(error["file"], error["line"], error["code"]) for error in errors]
    assert found == [("checked_too.py", 2, "arg-type"), ("checked_too.py", 3, "unused-ignore")], shown(errors)


def test_pyright_reports_what_is_wrong_in_a_user_s_code_and_nothing_else(folder: Path) -> None:
    output = output_of(folder, "pyright", "--outputjson", "--pythonpath", sys.executable)
    errors = json.loads(output)["generalDiagnostics"]
    found = [(Path(error["file"]).name, error["range"]["start"]["line"] + 1, error["rule"]) for error in errors]
    assert found == [
        ("checked_too.py", 2, "reportArgumentType"),
        ("checked_too.py", 3, "reportUnnecessaryTypeIgnoreComment"),
    ], shown(errors)
