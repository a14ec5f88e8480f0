"""What a task starts: it can be ended by the task, and it ends with the process that has started it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.pools import Pool, alive, pool
from tests.support import Broker, wait_until

FORKS = """
import multiprocessing

fork = multiprocessing.get_context("fork")

def forks(where):
    with fork.Pool(2) as workers:
        workers.map_async(time.sleep, [600] * 4)
    child = fork.Process(target=time.sleep, args=(600,))
    child.start()
    child.terminate()
    child.join(10)
    other = os.fork()
    if other == 0:
        default = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        default = default and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        os._exit(0 if default and not signal.pthread_sigmask(signal.SIG_BLOCK, []) else 1)
    note(f"{where} {child.exitcode} {os.waitpid(other, 0)[1]}")

@app.task(name="shop.forks", queue="work", retry=None)
def in_thread() -> None:
    forks("thread")

@app.task(name="shop.forks_alone", queue="work", retry=None, isolated=True)
def isolated() -> None:
    forks("isolated")
"""


def test_children_that_a_task_forks_begin_with_default_signals_so_that_it_can_end_them(
    tmp_path: Path, vhost: Broker
) -> None:
    with pool(tmp_path, vhost.url, "-p", "1", "-t", "2", broker=vhost, drain=1.0, more=FORKS) as workers:
        workers.wait_for("process_started")
        workers.send("forks")
        workers.send("forks_alone")
        wait_until(lambda: len(workers.ledger()) == 2, 40, "both have ended what they started")
        assert sorted(workers.ledger()) == [f"{one} {-signal.SIGTERM} 0" for one in ("isolated", "thread")]
        workers.signal(signal.SIGTERM)
        assert workers.end() == 0


STARTS = """
def program(text, **options):
    return subprocess.Popen(["/bin/sh", "-c", text], cwd=HERE, **options)

def starts(name, wait):
    pids = HERE / f"pids-{name}"
    if pids.exists():
        there = [pid for pid in pids.read_text().split() if Path(f"/proc/{pid}/stat").exists()]
        # One that was killed may be there until it is reaped.
        note(f"{name}: {sum(Path(f'/proc/{pid}/cmdline').read_bytes() != b'' for pid in there)} left")
        return
    stubborn = "trap '' TERM; while :; do sleep 0.1; done" if wait == "stubborn" else "exec sleep 600"
    own = program(f"echo $$ >> {pids}; {stubborn}")
    program(f"sh -c 'echo $$ >> {pids}; exec sleep 600' & exit").wait()
    program(f"sh -c 'echo $$ >> {pids}; exec sleep 600' & exit", start_new_session=True, env={}).wait()
    while not pids.exists() or len(pids.read_text().split()) < 3:
        time.sleep(0.01)
    note(f"{name}: started by {os.getpid()}")
    if wait == "crash":
        os._exit(66)
    own.wait() if wait == "child" else time.sleep(600)

@app.task(name="shop.starts", queue="work", retry=None)
def in_thread(name: str, wait: str) -> None:
    starts(name, wait)

@app.task(name="shop.starts_limited", queue="work", hard_limit=0.5, retry=[0.125])
def limited(name: str, wait: str) -> None:
    starts(name, wait)

@app.task(name="shop.starts_isolated", queue="work", hard_limit=1.5, retry=[0.125], isolated=True)
def isolated(name: str, wait: str) -> None:
    starts(name, wait)
"""


def line(workers: Pool, start: str) -> str | None:
    return next((one for one in workers.ledger() if one.startswith(start)), None)


def started(workers: Pool, name: str) -> list[int]:
    """Return what a run has started, once it has, and after that the process that it runs in."""
    found = wait_until(lambda: line(workers, f"{name}: started by "), 20, f"{name} has started its processes")
    return [*map(int, (workers.folder / f"pids-{name}").read_text().split()), int(found.split()[-1])]


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_what_a_run_has_started_is_over_before_its_message_runs_again(tmp_path: Path, vhost: Broker) -> None:
    with pool(tmp_path, vhost.url, "-p", "2", "-t", "2", broker=vhost, drain=1.0, more=STARTS) as workers:

        def runs_again(name: str) -> None:
            wait_until(lambda: line(workers, f"{name}: 0 left"), 25, f"another run of {name}: {workers.ledger()}")

        workers.wait_for("process_started", 2)
        for wait in ("sleep", "crash"):
            workers.send("starts_isolated", name=f"isolated {wait}".replace(" ", "-"), wait=wait)
        for name in ("isolated-sleep", "isolated-crash"):
            runs_again(name)
        workers.send("starts_limited", name="limited", wait="sleep")
        runs_again("limited")
        workers.send("starts", name="killed", wait="stubborn")
        os.kill(started(workers, "killed")[-1], signal.SIGKILL)
        runs_again("killed")
        workers.send("starts_isolated", name="both-killed", wait="sleep")
        os.kill(parent_of(started(workers, "both-killed")[-1]), signal.SIGKILL)
        runs_again("both-killed")
        workers.signal(signal.SIGTERM)
        assert workers.end() == 0


@pytest.mark.parametrize("how", ["drain", "second Ctrl-C", "supervisor killed"])
def test_nothing_that_a_task_has_started_survives_its_pool_and_no_run_counts_that_was_abandoned(
    tmp_path: Path, vhost: Broker, how: str
) -> None:
    with pool(tmp_path, vhost.url, "-p", "1", "-t", "1", broker=vhost, drain=0.5, more=STARTS) as workers:
        workers.wait_for("process_started")
        workers.send("starts", name="run", wait="child")
        there = started(workers, "run")
        if how == "second Ctrl-C":
            workers.signal(signal.SIGINT)
            workers.wait_for("supervisor_stopping")
            workers.signal(signal.SIGINT)
        else:
            workers.signal(signal.SIGTERM if how == "drain" else signal.SIGKILL)
        assert workers.end(25) == (-signal.SIGKILL if how == "supervisor killed" else 3)
        if how == "supervisor killed":
            wait_until(lambda: not any(map(alive, there)), 25, "the end of what the task has started")
        assert not any(map(alive, there))
        vhost.wait_for_count("work", 1)


HOLDS = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

executor = ProcessPoolExecutor(1)
fork_pool = None

@app.task(name="shop.holds", queue="work", retry=None)
def holds() -> None:
    global fork_pool
    executor.submit(os.getpid).result()
    fork_pool = multiprocessing.get_context("fork").Pool(1)
    multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,)).start()
    note("held")
"""


def test_pools_of_processes_and_processes_left_behind_hold_up_no_stop_and_no_recycling(
    tmp_path: Path, vhost: Broker
) -> None:
    options = ("-p", "1", "-t", "1", "--max-tasks", "1")
    with pool(tmp_path, vhost.url, *options, broker=vhost, drain=1.0, more=HOLDS) as workers:
        workers.wait_for("process_started")
        workers.send("holds")
        workers.wait_for("process_ended")
        assert workers.events("process_killed") == []
        workers.send("holds")
        wait_until(lambda: len(workers.ledger()) == 2, 20, "its successor has run")
        workers.signal(signal.SIGTERM)
        assert workers.end() == 0
        assert workers.events("process_killed") == []
