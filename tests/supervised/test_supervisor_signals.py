"""What operators ask a running pool for: new code, more or fewer processes, its status; and what it does by itself."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from pathlib import Path

from tests.pools import Pool, alive, pool
from tests.support import Broker, wait_until


def consuming(workers: Pool, count: int) -> None:
    """Wait until so many of the pool's processes consume."""
    wait_until(
        lambda: workers.broker is not None and workers.broker.consumers("work") == count, what=f"{count} consumers"
    )


def test_hup_replaces_each_process_and_never_leaves_fewer_consumers(tmp_path: Path, vhost: Broker) -> None:
    with pool(tmp_path, vhost.url, "-p", "2", "-t", "1", broker=vhost) as workers:
        workers.wait_for("process_started", 2)
        old = workers.children()
        fewest: list[int] = []
        done = threading.Event()

        def watch() -> None:
            while not done.is_set():
                fewest.append(vhost.consumers("work"))

        watching = threading.Thread(target=watch)
        watching.start()
        shop = tmp_path / "shop.py"
        shop.write_text(shop.read_text() + '\nnote("new code")\n')
        workers.signal(signal.SIGHUP)
        workers.wait_for("process_ended", 2)
        done.set()
        watching.join()
        assert min(fewest) >= 2
        assert max(fewest) <= 3
        assert workers.ledger() == ["new code", "new code"]
        wait_until(lambda: not any(alive(pid) for pid in old), what="the end of the old ones")
        workers.signal(signal.SIGTERM)
        assert workers.end() == 0


def test_hup_with_code_that_cannot_start_keeps_the_old_processes_and_logs_it(tmp_path: Path, vhost: Broker) -> None:
    with pool(tmp_path, vhost.url, "-p", "2", "-t", "1", broker=vhost) as workers:
        workers.wait_for("process_started", 2)
        (tmp_path / "shop.py").write_text("def this is not Python\n")
        workers.signal(signal.SIGHUP)
        (failed,) = workers.wait_for("reload_failed")
        assert "'shop' cannot be imported" in failed["reason"]
        assert all(alive(pid) for pid in workers.children())
        consuming(workers, 2)
        workers.send("slow", seconds=0, mark="x")
        wait_until(lambda: workers.ledger() == ["begin x", "end x"])


def test_hup_with_fixed_code_ends_new_processes_that_wait_for_a_broker_that_is_unreachable(
    tmp_path: Path, vhost: Broker
) -> None:
    with pool(tmp_path, vhost.url, "-p", "1", "-t", "1", broker=vhost) as workers:
        workers.wait_for("process_started")
        (old,) = workers.children()
        shop = tmp_path / "shop.py"
        mended = shop.read_text()
        shop.write_text(mended.replace(vhost.url, "amqp://127.0.0.1:1/"))
        workers.signal(signal.SIGHUP)
        workers.wait_for("worker_waiting")
        assert alive(old)
        shop.write_text(mended)
        workers.signal(signal.SIGHUP)
        workers.wait_for("process_ended", 2)
        wait_until(lambda: not alive(old))
        consuming(workers, 1)
        workers.signal(signal.SIGTERM)
        assert workers.end() == 0


def test_ttin_and_ttou_start_one_process_more_and_drain_one(tmp_path: Path, vhost: Broker) -> None:
    with pool(tmp_path, vhost.url, "-p", "1", "-t", "1", broker=vhost) as workers:
        workers.wait_for("process_started")
        workers.signal(signal.SIGTTIN)
        workers.wait_for("process_started", 2)
        workers.signal(signal.SIGTTOU)
        (ended,) = workers.wait_for("process_ended")
        assert ended["exit_status"] == "exit code 0"
        assert alive(workers.children()[0])


def test_usr1_writes_the_status_and_the_stacks_of_all_threads_to_the_log(tmp_path: Path, vhost: Broker) -> None:
    with pool(tmp_path, vhost.url, "-p", "1", "-t", "1", broker=vhost) as workers:
        workers.wait_for("process_started")
        workers.send("slow", seconds=60, mark="x")
        wait_until(lambda: workers.ledger() == ["begin x"])
        workers.signal(signal.SIGUSR1)
        (status,) = workers.wait_for("process_status")
        assert [one.split()[0] for one in status["running"]] == ["shop.slow"]
        assert status["stage"] == "consuming"
        wait_until(lambda: any("in slow" in one["stack"] for one in workers.events("thread_stack")))
        assert "MainThread" in [one["thread"] for one in workers.events("thread_stack")]
        shop = tmp_path / "shop.py"
        shop.write_text(shop.read_text() + "\nnote('importing')\nimport threading\nthreading.Event().wait(60)\n")
        workers.signal(signal.SIGHUP)
        wait_until(lambda: "importing" in workers.ledger(), what="a process that hangs at import")
        workers.signal(signal.SIGUSR1)
        wait_until(
            lambda: any("in <module>\n    threading.Event" in one["stack"] for one in workers.events("thread_stack")),
            what="the stack of a process that is starting",
        )
        (tmp_path / "go").touch()


BUSY = """
def deep(depth):
    return deep(depth - 1) if depth else time.monotonic()

@app.task(name="shop.busy", queue="work", retry=None)
def busy() -> None:
    note("busy")
    while not (HERE / "go").exists():
        for depth in range(0, 900, 7):
            deep(depth)
"""
LOOKS = 60


def test_dumps_of_the_stacks_of_busy_threads_kill_no_process(tmp_path: Path, vhost: Broker) -> None:
    """Stacks that are read in a signal handler, while their threads run, were one crash in 24."""
    with pool(tmp_path, vhost.url, "-p", "1", "-t", "4", broker=vhost, more=BUSY) as workers:
        workers.wait_for("process_started")
        for _ in range(4):
            workers.send("busy")
        wait_until(lambda: len(workers.ledger()) == 4)
        for number in range(1, LOOKS + 1):
            workers.signal(signal.SIGUSR1)
            workers.wait_for("process_status", number)
        wait_until(lambda: any("in deep" in one["stack"] for one in workers.events("thread_stack")))
        (tmp_path / "go").touch()
        workers.signal(signal.SIGTERM)
        assert workers.end() == 0
        assert workers.events("process_died") == []


def test_a_process_that_does_not_move_any_more_is_killed_and_replaced_with_its_stacks_in_the_log(
    tmp_path: Path, vhost: Broker
) -> None:
    with pool(tmp_path, vhost.url, "-p", "1", "-t", "1", "--stall-timeout", "2", broker=vhost) as workers:
        workers.wait_for("process_started")
        workers.send("stuck")
        (stalled,) = workers.wait_for("process_stalled")
        assert "thread has made no progress" in stalled["reason"]
        workers.wait_for("process_started", 2)
        assert "in stuck" in workers.log
        assert workers.wait_for("process_died")[0]["exit_status"] == "signal SIGKILL"


LEAVER = """
@app.task(name="shop.leaver", queue="work", retry=None)
def leaver() -> None:
    if (HERE / "left").exists():
        return
    other = subprocess.Popen(["sleep", "60"], process_group=0)
    os.setpgid(0, other.pid)
    (HERE / "left").write_text(str(other.pid))
    ctypes.PyDLL(None).sleep(600)
"""


def test_a_process_that_hangs_is_killed_though_a_task_has_taken_it_out_of_its_group(
    tmp_path: Path, vhost: Broker
) -> None:
    form = ("-p", "1", "-t", "1", "--stall-timeout", "2")
    with pool(tmp_path, vhost.url, *form, broker=vhost, more=LEAVER) as workers:
        (before,) = workers.wait_for("process_started")
        workers.send("leaver")
        try:
            workers.wait_for("process_started", 2)
        finally:
            for pid in (before["pid"], int((tmp_path / "left").read_text())):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        assert workers.wait_for("process_died")[0]["exit_status"] == "signal SIGKILL"


def test_a_process_is_replaced_after_its_number_of_tasks_and_none_is_lost_or_run_twice(
    tmp_path: Path, vhost: Broker
) -> None:
    with pool(tmp_path, vhost.url, "-p", "1", "-t", "1", "--max-tasks", "20", broker=vhost) as workers:
        workers.wait_for("process_started")
        for number in range(60):
            workers.send("slow", seconds=0, mark=str(number))
        (replaced,) = workers.wait_for("process_replaced")[:1]
        assert "it has run" in replaced["reason"]
        workers.wait_for("process_ended")
        wait_until(lambda: len(workers.ledger()) == 120)
        assert len(set(workers.ledger())) == 120


def test_a_process_that_was_stopped_as_a_whole_is_not_taken_for_one_that_has_stalled(
    tmp_path: Path, vhost: Broker
) -> None:
    with pool(tmp_path, vhost.url, "-p", "1", "-t", "1", "--stall-timeout", "7", broker=vhost) as workers:
        workers.wait_for("process_started")
        (child,) = workers.children()
        os.kill(workers.process.pid, signal.SIGSTOP)
        os.kill(child, signal.SIGSTOP)
        threading.Event().wait(8)
        os.kill(workers.process.pid, signal.SIGCONT)
        os.kill(child, signal.SIGCONT)
        workers.send("slow", seconds=0, mark="x")
        wait_until(lambda: workers.ledger() == ["begin x", "end x"])
        assert workers.events("process_stalled") == []
