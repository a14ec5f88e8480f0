"""The commands and the code of docs/scheduling.md, run in the order of the page."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.docs import ROOT, Command, blocks, commands
from tests.integration.test_docs import Shell
from tests.support import Broker, wait_until

PAGE = ROOT / "docs/scheduling.md"
# What differs each time, and the width of tables.
VARIES = {
    r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)": "TIME",
    r"\b[\w.-]+:\d+ leads": "HOST leads",
    r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b": "ID",
    r"[\s─]+": " ",
}


def masked(text: str) -> str:
    """Return an output without what varies."""
    for pattern, name in VARIES.items():
        text = re.sub(pattern, name, text)
    return text.strip()


def runs_on(command: Command) -> bool:
    """Return whether a command is a program that runs until it is stopped."""
    return re.match("amqpworker (worker|scheduler) ", command.line) is not None and "--check" not in command.line


@contextmanager
def running(shell: Shell, number: int, line: str) -> Iterator[None]:
    """Run a worker or a scheduler as if it had a host of its own; it must stop in good order."""
    log, runtime = shell.folder / f"{number}.log", shell.folder / f"runtime-{number}"
    runtime.mkdir(mode=0o700)
    env = {**shell.env, "XDG_RUNTIME_DIR": str(runtime)}
    with log.open("wb") as out:
        program = subprocess.Popen(shlex.split(line), cwd=shell.folder, env=env, stdout=out, stderr=out)
    try:
        wait_until(
            lambda: re.search("scheduler_(leading|standby)", log.read_text()), timeout=60, what=f"{line} subscribes"
        )
        yield
    finally:
        program.send_signal(signal.SIGTERM)
        code = program.wait(timeout=40)
    assert code == 0, log.read_text()


@pytest.mark.timeout(300)
def test_the_commands_of_the_page_print_what_it_shows(tmp_path: Path, vhost: Broker) -> None:
    for block in [*blocks(PAGE, "python"), *blocks(PAGE, "toml")]:
        (tmp_path / block.partition("\n")[0].removeprefix("# ")).write_text(block)
    shell = Shell(tmp_path, vhost.url)
    shell.env = {name: value for name, value in os.environ.items() if name != "COLUMNS"} | shell.env
    with ExitStack() as programs:
        for number, command in enumerate(commands(PAGE)):
            if runs_on(command):
                programs.enter_context(running(shell, number, command.line))
                continue
            shown = ""

            def prints(command: Command = command) -> bool:
                nonlocal shown
                done = shell.run(command.line)
                shown = f"{done.stdout}{done.stderr}"
                return done.returncode == 0 and masked(shown) == masked(command.output)

            # Again and again: until the first tick's task has ended, and on a busy machine until the leader replies in time.
            with suppress(AssertionError):
                wait_until(prints, timeout=60)
            assert masked(shown) == masked(command.output), command.line
