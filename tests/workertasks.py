"""
Tasks for real worker processes.

Each run leaves a file in the folder that `WORKERTASKS_FOLDER` names, so that a test sees it from outside, and some wait
there for a file that the test makes.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

from amqpworker import App, current

FOLDER = Path(os.environ.get("WORKERTASKS_FOLDER", "."))
QUEUE = "work"
WAITS = 60.0

app = App(default_queue=QUEUE)


def mark(what: str) -> None:
    """Write a line that shows what happened in which process."""
    with (FOLDER / "runs.txt").open("a") as file:
        file.write(f"{what} {os.getpid()} {current().id}\n")


@app.task(name="note")
def note(n: int) -> None:
    """Run, and note it."""
    mark(f"note-{n}")


@app.task(name="hold")
def hold(name: str) -> None:
    """Run until the file `name` is there."""
    mark(f"hold-{name}")
    until = time.monotonic() + WAITS
    while not (FOLDER / name).exists() and time.monotonic() < until:
        time.sleep(0.01)
    mark(f"held-{name}")


@app.task(name="hold-coroutine", retry=[0.125])
async def hold_coroutine(name: str) -> None:
    """Run until the file `name` is there, or until it is cancelled."""
    mark(f"hold-{name}")
    try:
        while not (FOLDER / name).exists():
            await asyncio.sleep(0.01)
    finally:
        mark(f"held-{name}")


@app.task(name="last-words")
def last_words() -> None:
    """Close standard output, and leave something to be done at the interpreter's exit."""
    mark("last-words")
    atexit.register((FOLDER / "said").touch)
    sys.stdout.close()


@app.task(name="die")
def die(name: str) -> None:
    """End the process at once, unless the file `name` is there."""
    mark(f"die-{name}")
    if not (FOLDER / name).exists():
        os._exit(66)


@app.task(name="start-others")
def start_others() -> None:
    """Start programs that read standard input to its end, and that note which pipes they hold."""
    read = subprocess.run(["/bin/cat"], stdout=subprocess.PIPE, check=True, timeout=WAITS).stdout
    code = (
        "import os, stat; there = [n for n in range(3, 64) if os.path.exists(f'/proc/self/fd/{n}')];"
        "print([n for n in there if stat.S_ISFIFO(os.fstat(n).st_mode)])"
    )
    command = [sys.executable, "-c", code]
    held = subprocess.run(command, stdout=subprocess.PIPE, close_fds=False, check=True, text=True).stdout.split()
    mark(f"read-{len(read)}-bytes,holds-{''.join(held)}")


@app.task(name="scribble")
def scribble(count: int) -> None:
    """Write into every pipe of this process."""
    for descriptor in range(3, 64):
        try:
            if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
                os.write(descriptor, b"hello" * count + b"\n")
        except OSError:
            continue
    mark(f"scribble-{count}")
