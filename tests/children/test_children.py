"""What a task starts: it can be ended by the task, and it ends with the process that has started it."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.pools import pool
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
        wait_until(lambda: len(workers.ledger()) == 2, 15, "both have ended what they started")
        assert sorted(workers.ledger()) == [f"{one} {-signal.SIGTERM} 0" for one in ("isolated", "thread")]
        workers.signal(signal.SIGTERM)
        assert workers.end() == 0
