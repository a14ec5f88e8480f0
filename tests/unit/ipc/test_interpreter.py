"""How a program of ours is started: by which interpreter, from which folder, by which names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import amqpworker
from amqpworker.errors import ConfigError
from amqpworker.ipc.interpreter import command_of, folder_as_given, interpreter_as_given, interpreter_options


@pytest.fixture
def current(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a link to a release, which was entered by the name of the link."""
    (tmp_path / "release-1").mkdir()
    (tmp_path / "current").symlink_to("release-1")
    monkeypatch.chdir(tmp_path / "current")
    monkeypatch.setenv("PWD", str(tmp_path / "current"))
    return tmp_path / "current"


def test_the_folder_has_the_name_that_it_was_entered_by(current: Path) -> None:
    assert folder_as_given() == current


@pytest.mark.parametrize("named", ["", ".", "/", "/no/such/folder"])
def test_a_name_of_another_folder_is_none_of_the_current_one(
    current: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    monkeypatch.setenv("PWD", named)
    assert folder_as_given() == current.resolve()


def test_a_folder_that_was_deleted_is_reported(current: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    current.resolve().rmdir()
    with pytest.raises(ConfigError, match="The current folder cannot be read: No such file or directory"):
        folder_as_given()
    monkeypatch.chdir("/")


@pytest.mark.parametrize("script", [".venv/bin/amqpworker", "{current}/.venv/bin/amqpworker"])
def test_an_interpreter_beside_the_program_has_the_name_by_which_that_was_started(
    current: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    (current / ".venv/bin").mkdir(parents=True)
    (current / ".venv/bin/python3").symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(current.resolve() / ".venv/bin/python3"))
    monkeypatch.setattr(sys, "argv", [script.format(current=current)])
    assert interpreter_as_given() == f"{current}/.venv/bin/python3"
    monkeypatch.setattr(sys, "argv", ["-c"])
    assert interpreter_as_given() == sys.executable


def test_a_package_that_only_the_current_folder_has_is_started_from_there_and_after_the_standard_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command_of("amqpworker.worker.dry_run") == [sys.executable, "-P", "-m", "amqpworker.worker.dry_run"]
    home = Path(amqpworker.__file__).parents[1]
    monkeypatch.chdir(home)
    given = command_of("amqpworker.worker.dry_run")
    program = "import json, queue, sys; print(json.__file__, queue.__file__, sys.argv[1:])"
    package = tmp_path / "amqpworker" / "worker"
    package.mkdir(parents=True)
    (package / "dry_run.py").write_text(program)
    (tmp_path / "queue.py").write_text("raise SystemExit('a module of the folder')")
    there = [str(tmp_path) if one == str(home) else one for one in given]
    # Without the installed package it is the folder's.
    there[1:1] = ["-I", "-S"]
    done = subprocess.run([*there, "5"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.endswith(" ['5']\n"), done.stderr


@pytest.mark.parametrize(
    ("given", "handed_on"),
    [
        ("-m amqpworker worker shop:app -q -O -W x", ""),
        ("-O -u -m amqpworker", "-O -u"),
        ("-OOu -X dev -Xutf8=0 -W error -m amqpworker", "-O -O -u -X dev -X utf8=0 -W error"),
        ("-uWignore::UserWarning -P -i -m amqpworker", "-u -W ignore::UserWarning"),
        ("-IPc code -O", "-I"),
        ("-bmamqpworker -O", "-b"),
        ("--check-hash-based-pycs always -B /usr/bin/amqpworker -O", "--check-hash-based-pycs always -B"),
        ("-E /usr/bin/amqpworker worker -s", "-E"),
        ("- -O", ""),
        ("-W", "-W "),
        ("", ""),
    ],
)
def test_options_are_handed_on_except_those_that_choose_what_runs(given: str, handed_on: str) -> None:
    assert " ".join(interpreter_options(["python", *given.split()])) == handed_on


def test_the_command_of_this_process_is_the_default() -> None:
    assert interpreter_options() == interpreter_options(sys.orig_argv)
