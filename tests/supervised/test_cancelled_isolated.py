"""An isolated process that runs a cancelled task: the task sees it, and with force the process is ended."""

from __future__ import annotations

import os
from pathlib import Path

from amqpworker import App
from amqpworker.client.cancelling import announce
from amqpworker.model.message import Message, new_id
from tests.pools import Pool, alive, pool
from tests.support import Broker, wait_until

TASKS = """
from amqpworker import current

@app.task(name="shop.isolated", queue="work", retry=5, isolated=True)
def isolated(mark: str) -> None:
    note(f"begin {mark} {os.getpid()} {current().cancelled}")
    ends = time.monotonic() + 20
    while time.monotonic() < ends and not (current().cancelled and mark != "forced"):
        time.sleep(0.01)
    note(f"end {mark} {current().cancelled}")
"""


def started(workers: Pool, mark: str) -> int:
    """Wait until a task runs, and return the process that it runs in."""

    def lines() -> list[str]:
        return [line for line in workers.ledger() if line.startswith(f"begin {mark} ")]

    wait_until(lambda: bool(lines()), 30, f"{mark} runs")
    (line,) = lines()
    assert line.endswith("False"), "the flag of the run before is cleared"
    return int(line.split()[2])


def test_an_isolated_task_sees_its_cancel_and_with_force_its_process_is_ended(tmp_path: Path, vhost: Broker) -> None:
    app = App(vhost.url)
    app.queue("work")
    with app, pool(tmp_path, vhost.url, "-p", "1", "-t", "1", broker=vhost, more=TASKS) as workers:
        pids = []
        for mark, force in (("first", False), ("second", False), ("forced", True), ("last", False)):
            task_id = new_id()
            app.send(Message("shop.isolated", "work", f'{{"mark": "{mark}"}}'.encode(), task_id))
            pids.append(started(workers, mark))
            announce(app, [task_id], force=force)
            if force:
                wait_until(lambda: not alive(pids[-1]), 10, "the process is ended")
            else:
                wait_until(lambda mark=mark: f"end {mark} True" in workers.ledger(), 10, "the task has seen it")  # type: ignore[misc]
        assert pids[0] == pids[1] == pids[2] != pids[3]
        wait_until(lambda: vhost.count("work") == 0, what="all are settled")
        assert workers.events("isolated_crashed") == workers.events("process_died") == []
        assert [line["reason"] for line in workers.events("isolated_killed")] == ["its task was cancelled with force"]
        assert os.getpid() not in pids
    assert vhost.count("work.dead") == 0
