"""The `amqpworker` program for tests: run in this process for most, as a process of its own for signals and ends."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from amqpworker.cli.main import main


@dataclass(frozen=True)
class Ended:
    """How a run of the program ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def complaint(self) -> str:
        """Return the one line on standard error; fail if there are more, or none."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("amqpworker: "), self.err
        return lines[0].removeprefix("amqpworker: ")


def run_here(capsys: pytest.CaptureFixture[str], *arguments: str) -> Ended:
    """Run the program in this process, and leave signals and logging as they were."""
    on_term, root = signal.getsignal(signal.SIGTERM), logging.getLogger()
    handlers, level = list(root.handlers), root.level
    capsys.readouterr()
    try:
        code = main(arguments)
    finally:
        signal.signal(signal.SIGTERM, on_term)
        root.handlers[:] = handlers
        root.setLevel(level)
    told = capsys.readouterr()
    return Ended(code, told.out, told.err)


def environment(url: str | None = None, **more: str) -> dict[str, str]:
    """Return an environment for the program: a broker's URL, and nothing that colours or widens what it prints."""
    kept = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "FORCE_COLOR", "PY_COLORS"}}
    return {**kept, **({"AMQPWORKER_URL": url} if url else {}), **more}


@contextmanager
def started(folder: Path, env: dict[str, str], *arguments: str, **more: Any) -> Iterator[subprocess.Popen[str]]:
    """Start the program as a process in `folder`; what is left of it at the end is killed."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **more}
    # By `-P` as the installed program is started: not with the folder before everything else.
    command = [sys.executable, "-P", "-m", "amqpworker", *arguments]
    process = subprocess.Popen(command, cwd=folder, env=env, **options)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def run(folder: Path, env: dict[str, str], *arguments: str, timeout: float = 30.0) -> Ended:
    """Run the program as a process in `folder`."""
    with started(folder, env, *arguments) as process:
        out, err = process.communicate(timeout=timeout)
    return Ended(process.returncode, out, err)
