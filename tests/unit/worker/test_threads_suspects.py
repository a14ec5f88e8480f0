"""Suspects among the runner threads: a few at once, each once, and none waits that could run."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from amqpworker.model.message import Delivery
from amqpworker.model.outcome import Done, Outcome
from amqpworker.worker.context import Run
from amqpworker.worker.threads import Concurrency, RunnerThreads
from tests.support import wait_until
from tests.unit.worker.test_threads import Scene as RunnersScene


class Isolation:
    """Runs nothing: each run lasts until the test lets one end."""

    def __init__(self) -> None:
        self.running: list[int] = []
        self.most = 0
        self._end = threading.Semaphore(0)

    def run(self, run: Run) -> Outcome:
        self.running.append(run.delivery.tag)
        self.most = max(self.most, len(self.running))
        assert self._end.acquire(timeout=20)
        self.running.remove(run.delivery.tag)
        return Done()

    def end(self, count: int = 1) -> None:
        self._end.release(count)


class Scene(RunnersScene):
    """Runners whose tasks `quick` and `apart` do nothing; the second is isolated."""

    def __init__(self) -> None:
        super().__init__()
        self.isolation = Isolation()

        def quick() -> None: ...

        def apart() -> None: ...

        for function in (quick, apart):
            self.task(function)
        self.tasks["apart"].isolated = True

    def suspect(self, runners: RunnerThreads, name: str = "quick", queue: str = "") -> Delivery:
        delivery = self.bench.delivery(b"{}", type=name)
        delivery.queue = queue or delivery.queue
        delivery.is_suspect = True
        runners.put_isolated(delivery)
        return delivery

    def wait_for_running(self, count: int) -> None:
        wait_until(lambda: len(self.isolation.running) == count, what=f"{count} run isolated")


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    made.isolation.end(1000)
    for runners in made.started:
        runners.stop()


def test_no_more_suspects_run_at_once_than_allowed_and_all_of_them_run(scene: Scene) -> None:
    runners = scene.begin(Concurrency(4, 10, {}, suspects=2))
    for _ in range(20):
        scene.suspect(runners)
    for count in range(18):
        scene.wait_for_running(2)
        wait_until(lambda count=count: runners.permits.waiting == 18 - count)  # type: ignore[misc]
        scene.isolation.end()
        scene.wait_for(count + 1)
    scene.isolation.end(2)
    scene.wait_for(20)
    assert scene.isolation.most == 2
    assert sorted(tag for tag, _ in scene.settled.outcomes) == list(range(1, 21))


def test_suspects_that_wait_occupy_no_thread(scene: Scene) -> None:
    runners = scene.begin(Concurrency(2, 10, {}, suspects=1))
    for _ in range(5):
        scene.suspect(runners)
    others = [scene.put(runners, "quick") for _ in range(5)]
    scene.wait_for(5)
    assert {tag for tag, _ in scene.settled.outcomes} == {one.tag for one in others}
    assert len(scene.bench.channel.unclaimed) == 4, "unclaimed: they can go back"


def test_isolated_tasks_need_no_permit(scene: Scene) -> None:
    runners = scene.begin(Concurrency(4, 10, {}, suspects=1))
    scene.suspect(runners)
    scene.suspect(runners, "apart")
    scene.put(runners, "apart")
    scene.wait_for_running(3)
    assert runners.permits.waiting == 0


def test_a_waiting_suspect_runs_even_if_those_before_it_were_requeued(scene: Scene) -> None:
    runners = scene.begin(Concurrency(2, 10, {}, suspects=1))
    first = scene.suspect(runners)
    scene.wait_for_running(1)
    *gone, last = [scene.suspect(runners) for _ in range(5)]
    wait_until(lambda: runners.permits.waiting == 5)
    for one in gone:
        del scene.bench.channel.unclaimed[one.tag]
    runners.drop_requeued()
    scene.isolation.end(2)
    scene.wait_for(2)
    assert [tag for tag, _ in scene.settled.outcomes] == [first.tag, last.tag]


def test_suspects_that_wait_for_a_permit_are_dropped_with_their_channel(scene: Scene) -> None:
    runners = scene.begin(Concurrency(2, 10, {}, suspects=1))
    for _ in range(6):
        scene.suspect(runners)
    wait_until(lambda: runners.permits.waiting == 5)
    scene.bench.channel.unclaimed.clear()
    runners.drop_requeued()
    assert runners.permits.waiting == 0


def test_a_suspect_runs_in_a_thread_of_its_queue(scene: Scene) -> None:
    runners = scene.begin(Concurrency(1, 10, {"reports": 1}, suspects=1))
    scene.suspect(runners, queue="reports")
    scene.wait_for_running(1)
    scene.suspect(runners, queue="emails")
    scene.suspect(runners, queue="reports")
    scene.put(runners, "quick", queue="emails")
    scene.wait_for(1)
    for count in (2, 3, 4):
        scene.isolation.end()
        scene.wait_for(count)
    assert scene.isolation.most == 1


def test_a_suspect_of_an_unknown_task_releases_its_permit(scene: Scene) -> None:
    runners = scene.begin(Concurrency(1, 10, {}, suspects=1))
    scene.suspect(runners, "nothing")
    scene.suspect(runners)
    scene.wait_for_running(1)
