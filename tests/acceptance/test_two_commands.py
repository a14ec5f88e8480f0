"""The two commands of the README, in a fresh clone whose path has a space: they work, again too, and leave nothing."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support import wait_until

HERE = Path(__file__).parent
FROM_MAKE = ("MAKE", "MFLAGS", "ARGS", "AMQPWORKER_", "PYTHON", "VIRTUAL_ENV", "PYTEST_", "COV_")

SOURCES = {
    "good.py": "def twice(n: int) -> int:\n    return 2 * n\n",
    "also good.py": "class Empty:\n    pass\n",
    "flawed.py": "def broken(:\n",
}


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Path]:
    """A clone of the checkout's last commit; whatever is left running in it is ended."""
    checkout = subprocess.check_output(["git", "-C", HERE, "rev-parse", "--show-toplevel"], text=True).strip()
    folder = tmp_path / "a path with a space" / "amqpworker"
    subprocess.run(["git", "clone", "--quiet", checkout, folder], check=True)
    yield folder
    for pid in processes_of(folder):
        with suppress(ProcessLookupError):
            os.kill(pid, 9)


def processes_of(folder: Path) -> dict[int, str]:
    """Return the processes that have to do with a folder: by command, environment or working directory."""
    mark = str(folder).encode()
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                about = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                if mark in about or mark in os.readlink(entry / "cwd").encode():
                    found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
    return found


def make(folder: Path, *arguments: str) -> str:
    """Run make as a stranger would, and return what it printed; it must succeed and leave no process."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(FROM_MAKE)}
    done = subprocess.run(
        ["make", *arguments],
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, f"make {' '.join(arguments)}: {done.returncode}\n{done.stdout[-4000:]}"
    with suppress(AssertionError):
        wait_until(lambda: not processes_of(folder), 5)
    assert not processes_of(folder), f"make {' '.join(arguments)} left processes"
    return done.stdout


@pytest.mark.timeout(240)
def test_the_two_commands_work_in_a_fresh_clone_and_leave_no_process(clone: Path, tmp_path: Path) -> None:
    listed = make(clone, "help")
    assert {"make demo", "make test"} <= {" ".join(line.split()[:2]) for line in listed.splitlines()}

    sources = tmp_path / "some sources"
    sources.mkdir()
    for name, text in SOURCES.items():
        (sources / name).write_text(text)

    make(clone, "setup")
    for _ in range(2):
        told = make(clone, "demo", f"DIR={sources}")
        words = " ".join(told.split())
        for part in (
            "sent 3 in",
            "done 2,",
            "dead 1 in queue",
            "dead: flawed.py",
            " ticks, one per second",
            "Everything is stopped now",
        ):
            assert part in words, told
    assert subprocess.check_output(["git", "-C", clone, "status", "--porcelain"], text=True) == ""
