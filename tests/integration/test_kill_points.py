"""Each step at which the acceptance tests kill a worker is reached in a run: else they find out only after minutes."""

from __future__ import annotations

import importlib
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from amqpworker import App, Reject, current
from amqpworker.testing import running_worker
from tests.support import Broker

SERVICE = Path(__file__).parents[1] / "acceptance/service"
# The task itself calls this one.
IN_THE_TASK = {"in the run"}


@pytest.fixture
def hits(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count how often each step is reached; what the traps replace is put back after the test."""
    monkeypatch.syspath_prepend(SERVICE)
    killpoints: Any = importlib.import_module("killpoints")
    monkeypatch.setattr(killpoints, "setattr", monkeypatch.setattr, raising=False)
    found: Counter[str] = Counter()
    for point, set_trap in killpoints.POINTS.items():
        found[point] = 0
        set_trap(partial(found.update, [point]))
    return found


def test_each_step_is_reached(hits: Counter[str], vhost: Broker, tmp_path: Path) -> None:
    app = App(vhost.url, results=f"sqlite:///{tmp_path / 'results.db'}")

    @app.task(name="kill.comes_again", queue="work", retry=[0.125])
    def comes_again() -> int:
        if current().attempt == 1:
            raise ValueError
        return 1

    @app.task(name="kill.dies", queue="work")
    def dies() -> None:
        raise Reject("no use")

    with running_worker(app, threads=1):
        assert comes_again.send().result(timeout=10) == 1
        assert comes_again.call() == 1
        dies.send()
        vhost.wait_for_count("work.dead", 1)
    assert {point for point, count in hits.items() if not count} == IN_THE_TASK
