"""What code of an app changes for its whole process: the current folder, and handlers of signals."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.pools import Pool, alive, pool
from tests.support import Broker, wait_until

TASKS = """
from contextlib import contextmanager

signal.signal(signal.SIGTERM, signal.SIG_IGN)

@contextmanager
def around():
    signal.signal(signal.SIGTERM, lambda *_: note("the handler of the lifespan"))
    yield

app.lifespan = around

@app.task(name="shop.moves", queue="work", retry=None)
def moves() -> None:
    os.chdir("/")
    note("moved")

@app.task(name="shop.alone", queue="work", retry=None, isolated=True)
def alone(mark: str) -> None:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(9))
    note(f"{mark} {os.getpid()}")
"""
STRAY = (signal.SIGHUP, signal.SIGUSR1, signal.SIGQUIT, signal.SIGTTIN, signal.SIGTTOU)


def alone(workers: Pool, mark: str) -> int:
    """Run a task in an isolated process, and return the process's id."""
    workers.send("alone", mark=mark)
    wait_until(lambda: any(line.startswith(f"{mark} ") for line in workers.ledger()), 20, f"the end of {mark}")
    return int(workers.ledger()[-1].split()[1])


def test_neither_a_folder_nor_handlers_nor_stray_signals_take_from_a_process_what_it_needs(
    tmp_path: Path, vhost: Broker
) -> None:
    with pool(tmp_path, vhost.url, "-p", "1", "-t", "1", broker=vhost, more=TASKS) as workers:
        (worker,) = (line["pid"] for line in workers.wait_for("process_started"))
        workers.send("moves")
        wait_until(lambda: "moved" in workers.ledger(), 20, "the task that changes the folder")
        os.kill(alone(workers, "first"), signal.SIGKILL)
        isolated = alone(workers, "in-a-process-that-was-started-after-that")
        replaced = workers.events("signal_handler_replaced")
        sources = [(line["source"], line["handlers"]) for line in replaced]
        assert sources[:2] == [
            ("the app's import", {"SIGTERM": "SIG_IGN"}),
            ("the app's lifespan", {"SIGTERM": "shop.around.<locals>.<lambda>"}),
        ]
        assert ("task 'shop.alone'", {"SIGTERM": "shop.alone.<locals>.<lambda>"}) in sources
        for number in STRAY:
            os.kill(worker, number)
            os.kill(isolated, number)
        os.kill(isolated, signal.SIGTERM)
        assert alone(workers, "last") == isolated
        assert alive(worker)
        workers.signal(signal.SIGTERM)
        assert workers.end() == 0
        assert workers.events("worker_draining")
        assert "the handler of the lifespan" not in workers.ledger()
