"""What a pool and a sending process hold after many tasks of every kind: no more memory, descriptors or threads than before."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from amqpworker import App
from amqpworker.model.message import Message, new_id
from tests.long.conftest import LONG, tell
from tests.pools import pool
from tests.support import Broker, wait_until

TASKS = 100_000 if LONG else 4_000
ROUNDS = 5
"""What the first rounds allocate once, such as caches and the arenas of an allocator, is not a leak."""
WARM_UP = 2
MOST_GROWTH = 4 << 20
MORE = """
app.results = "sqlite:///results.db"

@app.task(name="shop.plain", queue="work")
def plain(text: str) -> str:
    return text

@app.task(name="shop.limited", queue="work", time_limit=60)
def limited(text: str) -> None: ...

@app.task(name="shop.coroutine", queue="work")
async def coroutine(text: str) -> str:
    return text

@app.task(name="shop.flaky", queue="work", retry=[0])
def flaky(text: str) -> None:
    if current().attempt == 1:
        raise ValueError(text)

from amqpworker import current
"""
KINDS = ("plain", "limited", "coroutine", "flaky")


@dataclass(frozen=True)
class Held:
    """What a process holds."""

    memory: int
    descriptors: int
    threads: int


def held(pid: int | str) -> Held:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return Held(int(status["VmRSS"].split()[0]) << 10, descriptors, int(status["Threads"]))


def send_round(app: App, count: int, numbers: Any) -> None:
    """Send a share of each kind, and call a few tasks."""
    body = json.dumps({"text": "x" * 200}).encode()
    for outcome in app.send_each(
        Message(f"shop.{KINDS[n % len(KINDS)]}", "work", body, new_id()) for n in range(count)
    ):
        assert not isinstance(outcome, Exception), outcome
    for _ in range(max(10, count // 200)):
        assert numbers.options(timeout=60).call(text="y") == "y"


@pytest.mark.timeout(900)
def test_many_tasks_leave_no_memory_descriptors_or_threads_behind(tmp_path: Path, vhost: Broker) -> None:
    app = App(vhost.url)

    @app.remote(name="shop.plain", queue="work")
    def plain(text: str) -> str:
        raise NotImplementedError

    seen: dict[str, list[Held]] = {"worker": [], "supervisor": [], "sender": []}
    with pool(tmp_path, vhost.url, "-p", "1", "-t", "4", broker=vhost, more=MORE) as workers, app:
        (worker,) = (line["pid"] for line in workers.wait_for("process_started"))
        for _ in range(ROUNDS):
            send_round(app, TASKS // ROUNDS, plain)
            wait_until(lambda: vhost.count("work") == 0, 120, "all tasks have ended")
            for name, pid in (("worker", worker), ("supervisor", workers.process.pid), ("sender", "self")):
                seen[name].append(held(pid))
        workers.process.terminate()
        assert workers.end() == 0
    growth = {name: rounds[-1].memory - rounds[WARM_UP - 1].memory for name, rounds in seen.items()}
    tell(
        "leaks", f"{TASKS:,}", "none", ", ".join(f"{name} grew by {size >> 10:,} KiB" for name, size in growth.items())
    )
    assert all(size < MOST_GROWTH for size in growth.values()), (growth, seen)
    for rounds in seen.values():
        assert rounds[-1].descriptors <= rounds[WARM_UP - 1].descriptors, seen
        assert rounds[-1].threads <= rounds[WARM_UP - 1].threads, seen
