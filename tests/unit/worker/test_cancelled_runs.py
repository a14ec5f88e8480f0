"""Tasks that are cancelled while they run: in a thread, with and without limits, and in the event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from amqpworker import App, TaskCancelled, current
from amqpworker.model.cancel import HOLDS, Cancel, encode_cancel
from amqpworker.model.message import Delivery, Properties
from amqpworker.model.outcome import Cancelled, Done, Outcome
from amqpworker.worker.cancelled_runs import CancelledRuns
from amqpworker.worker.cancels import Cancels
from amqpworker.worker.context import Run
from amqpworker.worker.executor import TaskExecutor
from amqpworker.worker.isolation.isolation import Isolation
from amqpworker.worker.limits.limits import Limits, Pace
from amqpworker.worker.pipeline import Pipeline
from amqpworker.worker.threads import Concurrency, RunnerThreads
from tests.support import wait_until

DEADLINE = 20.0


class Channel:
    """A channel on which everything can be claimed once."""

    is_open = True

    def __init__(self) -> None:
        self.unclaimed: set[Delivery] = set()

    def claim(self, delivery: Delivery) -> bool:
        if delivery not in self.unclaimed:
            return False
        self.unclaimed.discard(delivery)
        return True

    def is_unclaimed(self, delivery: Delivery) -> bool:
        return delivery in self.unclaimed


class Settled:
    """A settler that only keeps the outcomes."""

    storer = None

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    def settle(self, delivery: Delivery, outcome: Outcome, run: Run | None = None) -> None:  # noqa: ARG002
        self.outcomes.append(outcome)


class Scene:
    def __init__(self, app: App) -> None:
        self.cancels = Cancels()
        self.settled = Settled()
        self.channel: Any = Channel()
        pace = Pace(repeat_after=0.2, report_after=0.5)
        self.limits = Limits(pace=pace, is_cancelled=self.cancels.is_cancelled)
        executor = TaskExecutor(app.tasks, False, self.limits, gates=[self.cancels.gate])
        isolation = Isolation(_no_process, 3, 7.0)
        settler: Any = self.settled
        self.runners = RunnerThreads(Pipeline(executor, settler, isolation), Concurrency(2, 4))
        self.runs = CancelledRuns(self.cancels, self.runners, isolation)
        self.runners.start()

    def put(self, task: str, task_id: str = "m-1") -> None:
        properties = Properties(type=task, message_id=task_id)
        delivery = Delivery(1, False, "amqpworker.tasks", "work", properties, b"{}")
        delivery.channel, delivery.is_suspect = self.channel, False
        self.channel.unclaimed.add(delivery)
        self.runners.put(delivery)

    def cancel(self, task_id: str = "m-1", *, force: bool = False) -> None:
        now = int(time.time() * 1000)
        self.entry(encode_cancel(Cancel(task_id, now, now + HOLDS, force)))

    def entry(self, body: bytes) -> None:
        self.runs.on_entry(Delivery(1, False, "amqpworker.tasks", "amqpworker.cancelled", Properties(), body))

    def outcome(self) -> Outcome:
        wait_until(lambda: bool(self.settled.outcomes), DEADLINE, what="an outcome")
        return self.settled.outcomes.pop()


def _no_process() -> Any:
    raise AssertionError("nothing is isolated here")


@contextmanager
def scene_of(*functions: Callable[..., Any], **options: Any) -> Iterator[Scene]:
    app = App("amqp://localhost")
    for function in functions:
        app.task(name=function.__name__, **options)(function)
    scene = Scene(app)
    try:
        yield scene
    finally:
        scene.runners.stop()


LIMITS = [{}, {"time_limit": 600}, {"hard_limit": 600}, {"time_limit": 600, "hard_limit": 700}]


def test_a_message_that_is_cancelled_before_it_starts_does_not_run() -> None:
    ran: list[str] = []

    def work() -> None:
        ran.append(current().id)

    with scene_of(work) as scene:
        scene.cancel("m-1")
        scene.put("work", "m-1")
        assert isinstance(scene.outcome(), Cancelled)
        scene.put("work", "m-2")
        assert scene.outcome() == Done()
    assert ran == ["m-2"]


def test_a_task_sees_that_it_is_cancelled_and_may_stop_early() -> None:
    began = threading.Event()

    def work() -> None:
        began.set()
        wait_until(lambda: current().cancelled, DEADLINE, what="its cancel")

    async def wait() -> None:
        began.set()
        while not current().cancelled:
            await asyncio.sleep(0.01)
        raise TaskCancelled

    with scene_of(work, wait) as scene:
        for task, kind in (("work", Done), ("wait", Cancelled)):
            began.clear()
            scene.put(task, task)
            assert began.wait(DEADLINE)
            scene.cancel(task)
            assert isinstance(scene.outcome(), kind)


def spin_until(ends: float) -> None:
    """Use the processor. Python 3.13 does not count the jump back of a loop as inside a `try` around it: so it is a function."""
    while time.monotonic() < ends:
        pass


@pytest.mark.parametrize("options", LIMITS)
def test_with_force_a_task_is_interrupted_in_its_thread_and_never_retried(options: dict[str, Any]) -> None:
    began = threading.Event()
    seen: list[str] = []

    def work() -> None:
        try:
            ends = time.monotonic() + DEADLINE
            began.set()
            spin_until(ends)
        except TaskCancelled:
            seen.append("cleaned up")
            raise ValueError("what cleaning up has raised") from None

    def other() -> None:
        ends = time.monotonic() + 0.05
        while time.monotonic() < ends:
            pass

    with scene_of(work, other, **options, retry=5) as scene:
        scene.put("work")
        assert began.wait(DEADLINE)
        scene.cancel("m-2", force=True)
        scene.put("other", "m-3")
        scene.cancel("m-1", force=True)
        wait_until(lambda: len(scene.settled.outcomes) == 2, DEADLINE, what="two outcomes")
        assert Done() in scene.settled.outcomes, "the other task is not interrupted"
        (outcome,) = (one for one in scene.settled.outcomes if isinstance(one, Cancelled))
        assert outcome.failure.error_type == "ValueError"
        scene.settled.outcomes.clear()
        assert seen == ["cleaned up"]
        assert not scene.limits.interruptions
        # the thread works on, and nothing is raised in it later
        for number in range(5):
            scene.put("other", f"next-{number}")
        for _ in range(5):
            assert scene.outcome() == Done()


def test_a_task_that_continues_after_its_cancel_is_interrupted_again_and_named_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    began = threading.Event()
    swallowed: list[int] = []

    def work() -> None:
        ends = time.monotonic() + DEADLINE
        while time.monotonic() < ends and len(swallowed) < 5:
            try:
                began.set()
                spin_until(ends)
            except TaskCancelled:
                swallowed.append(1)

    with scene_of(work) as scene:
        scene.put("work")
        assert began.wait(DEADLINE)
        scene.cancel(force=True)
        assert scene.outcome() == Done(), "it has returned"
    assert len(swallowed) == 5
    assert [one for one in caplog.records if "cancel_ignored" in one.getMessage()]


def test_with_force_a_coroutine_is_cancelled_and_never_retried() -> None:
    began = threading.Event()
    swallowed: list[int] = []

    async def wait() -> None:
        began.set()
        try:
            await asyncio.sleep(600)
        finally:
            swallowed.append(1)

    with scene_of(wait, retry=5) as scene:
        scene.put("wait")
        assert began.wait(DEADLINE)
        scene.cancel(force=True)
        outcome = scene.outcome()
        assert isinstance(outcome, Cancelled)
        assert outcome.failure.error_type == "amqpworker.errors.TaskCancelled"
        assert swallowed == [1]


def test_tasks_that_end_as_they_are_cancelled_end_once_each_and_interrupt_no_other() -> None:
    started: list[str] = []

    def work() -> None:
        started.append(current().id)
        for _ in range(3000):
            pass

    with scene_of(work) as scene:
        for number in range(200):
            scene.put("work", f"m-{number}")
            scene.cancel(f"m-{number}", force=True)
        wait_until(lambda: len(scene.settled.outcomes) == 200, DEADLINE, what="200 outcomes")
        assert {type(one) for one in scene.settled.outcomes} <= {Cancelled, Done}
        wait_until(lambda: not scene.runners.running, DEADLINE, what="the end of all runs")
        scene.settled.outcomes.clear()
        for number in range(20):
            scene.put("work", f"after-{number}")
        wait_until(lambda: len(scene.settled.outcomes) == 20, DEADLINE, what="20 outcomes")
        assert {type(one) for one in scene.settled.outcomes} == {Done}


def test_an_entry_that_cannot_be_read_is_logged_and_ignored(caplog: pytest.LogCaptureFixture) -> None:
    with scene_of() as scene:
        scene.entry(b"no")
        scene.cancel("m-1")
        assert len(scene.cancels) == 1
    assert [one for one in caplog.records if "cancel_not_readable" in one.getMessage()]
