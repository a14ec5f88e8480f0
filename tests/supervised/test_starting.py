"""Worker processes that never come so far as to consume: at import, in their lifespan, without a broker."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from amqpworker.testing import processes
from tests.pools import pool
from tests.support import Broker

ONCE = """
def first():
    if (HERE / "once").exists():
        return False
    (HERE / "once").touch()
    return True
"""
HANGS = {
    "in a call that waits": ONCE + "\nif first(): time.sleep(600)\n",
    "in C, with the interpreter's lock": ONCE + "\nif first(): ctypes.PyDLL(None).sleep(600)\n",
    "in its lifespan": ONCE
    + """
from contextlib import asynccontextmanager

@asynccontextmanager
async def around():
    if first():
        time.sleep(600)
    yield

app.lifespan = around
""",
}


@pytest.mark.parametrize("hang", HANGS.values(), ids=HANGS.keys())
def test_a_process_that_hangs_before_it_is_ready_is_killed_with_its_stacks_and_started_again(
    tmp_path: Path, vhost: Broker, hang: str
) -> None:
    with pool(tmp_path, vhost.url, "-p", "1", "--start-timeout", "3", broker=vhost, more=hang) as workers:
        stalled = workers.wait_for("process_stalled")[0]
        assert stalled["what"] == "it was not ready within 3 s"
        died = workers.wait_for("process_died")[0]
        assert (died["how"], died["reason"]) == ("signal SIGKILL", stalled["what"])
        assert 'shop.py", line' in workers.log
        workers.wait_for("process_started")
        workers.signal(signal.SIGTERM)
        assert workers.end() == 0


def test_waiting_for_a_broker_does_not_count_as_starting(tmp_path: Path) -> None:
    (port,) = processes.free_ports(1)
    with pool(tmp_path, f"amqp://127.0.0.1:{port}/", "-p", "1", "--start-timeout", "4") as workers:
        workers.wait_for("worker_waiting", 1)
        assert workers.events("process_stalled") == []
        workers.signal(signal.SIGTERM)
        assert workers.end() == 0
