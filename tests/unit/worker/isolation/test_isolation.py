"""Which isolated process runs a task, and the outcome if that process ends, hangs or cannot be started."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from amqpworker.model.message import Delivery
from amqpworker.model.outcome import Cancelled, Dead, Done, Failure, Outcome, Postpone, Requeue, Snooze
from amqpworker.policies.time_limit import TimeLimit
from amqpworker.worker.context import Run
from amqpworker.worker.isolation import isolation as isolation_module
from amqpworker.worker.isolation.isolated_process import Answer, Arrived, Crash, Late
from amqpworker.worker.isolation.isolation import Isolation
from amqpworker.worker.isolation.protocol import HEAD, outcome_to
from amqpworker.worker.limits.limits import RunAbandoned
from tests.support import wait_until
from tests.unit.worker.settling import Bench, registered

DONE = Arrived(outcome_to(Done(b"1"))[HEAD.size :])


class Process:
    """An isolated process whose behaviour a test sets."""

    def __init__(self, number: int, scene: Scene) -> None:
        self.pid = number
        self.runs = 0
        self.spent = False
        self.killed_by_cancel = False
        self.shows_cancelled: list[bool] = []
        self.outdated = False
        self.idle_since = 0.0
        self.is_alive = True
        self.gets_ready = True
        self.dismissed = False
        self.leaves = True
        self.closed = False
        self.leaves_others = threading.Event()
        self.leftovers = SimpleNamespace(any=self.leaves_others.is_set)
        self.killed = threading.Event()
        self.timeouts: list[float] = []
        self._scene = scene

    def alive(self) -> bool:
        return self.is_alive

    def wait_ready(self, timeout: float) -> bool:
        assert timeout == 7.0
        return self.gets_ready

    def run(self, _request: bytes, timeout: float, _on_progress: object = None) -> Answer:
        assert not self.closed
        self.runs += 1
        self.timeouts.append(timeout)
        return self._scene.answer()

    def show_cancelled(self, cancelled: bool) -> None:
        self.shows_cancelled.append(cancelled)

    def dismiss(self) -> None:
        self.dismissed = True
        if self.leaves:
            self.is_alive = False

    def exited(self, timeout: float) -> None:
        assert timeout <= isolation_module.SHUTDOWN_GRACE

    def kill(self) -> None:
        self.killed.set()

    def close(self) -> None:
        if self.leaves_others.is_set():
            wait_until(lambda: not self.leaves_others.is_set(), what="the end of what it has left")
        self.closed = True


class Scene:
    def __init__(self) -> None:
        self.bench = Bench()
        self.started: list[Process] = []
        self.answer: Callable[[], Answer] = lambda: DONE
        self.fails: list[OSError] = []
        self.gets_ready = True

    def start(self) -> Any:
        if self.fails:
            raise self.fails.pop(0)
        process = Process(len(self.started) + 1, self)
        process.gets_ready = self.gets_ready
        self.started.append(process)
        return process

    def isolation(self, ahead: bool = False, max_crashes: int = 3) -> Isolation:
        return Isolation(self.start, max_crashes, 7.0, ahead)

    def run(self, limit: TimeLimit = TimeLimit(), cancelled: Callable[[Delivery], bool] | None = None) -> Run:  # noqa: B008 - frozen
        return Run(registered(time_limit=limit), self.bench.delivery(), "id", 1, 0.0, 0.0, cancelled)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_process_is_reused_after_it_has_returned_an_outcome(scene: Scene) -> None:
    isolation = scene.isolation()
    assert isolation.run(scene.run()) == Done(b"1")
    assert isolation.run(scene.run(TimeLimit(1, 2))) == Done(b"1")
    assert isolation.run(scene.run(TimeLimit(1))) == Done(b"1")
    (process,) = scene.started
    assert process.timeouts == [math.inf, 2, 61], "what ignores its time_limit is ended with its process"


def test_a_process_that_accepts_no_more_tasks_is_not_reused(scene: Scene) -> None:
    isolation = scene.isolation()

    def last() -> Answer:
        scene.started[-1].spent = True
        return DONE

    scene.answer = last
    assert isolation.run(scene.run()) == Done(b"1")
    assert isolation.run(scene.run()) == Done(b"1")
    assert [process.runs for process in scene.started] == [1, 1]


def test_a_run_whose_connection_was_lost_is_requeued_without_starting_and_its_process_is_kept(scene: Scene) -> None:
    isolation = scene.isolation()
    lost = scene.run()
    lost.delivery.channel.is_open = False
    assert isolation.run(lost) == Requeue()
    (process,) = scene.started
    assert (process.runs, process.closed, isolation.in_use) == (0, False, 0)
    scene.bench.channel.is_open = True
    assert isolation.run(scene.run()) == Done(b"1")
    assert (len(scene.started), process.runs) == (1, 1)


def test_a_message_whose_connection_was_lost_is_not_postponed_if_no_process_can_be_started(scene: Scene) -> None:
    scene.gets_ready = False
    lost = scene.run()
    lost.delivery.channel.is_open = False
    assert scene.isolation().run(lost) == Requeue()


def test_concurrent_tasks_run_in_a_process_each(scene: Scene) -> None:
    both = threading.Barrier(2, timeout=10)

    def answer() -> Answer:
        both.wait()
        return DONE

    scene.answer = answer
    isolation = scene.isolation()
    outcomes: list[Outcome] = []
    threads = [threading.Thread(target=lambda: outcomes.append(isolation.run(scene.run()))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert outcomes == [Done(b"1"), Done(b"1")]
    assert len(scene.started) == 2


@pytest.mark.parametrize(
    "ending",
    [Crash(-9, reason="killed: it had not moved"), Late("in f"), Arrived(b"nonsense"), Arrived(b"Requeue\n{}")],
)
def test_a_process_that_crashes_hangs_or_sends_garbage_is_not_reused(scene: Scene, ending: Answer) -> None:
    scene.answer = lambda: ending
    isolation = scene.isolation()
    outcome = isolation.run(scene.run(TimeLimit(1, 1)))
    assert scene.started[0].closed
    if isinstance(ending, Late):
        assert outcome == Dead(
            "timeout", Failure("TimeLimitExceeded", "the task has run for longer than its hard limit of 1 s", "in f")
        )
    else:
        assert isinstance(outcome, Snooze)
        assert outcome.crashes == 1
    scene.answer = lambda: DONE
    assert isolation.run(scene.run()) == Done(b"1")
    assert len(scene.started) == 2


def test_a_message_is_dead_lettered_after_max_crashes(scene: Scene) -> None:
    scene.answer = lambda: Crash(7)
    outcome = scene.isolation(max_crashes=1).run(scene.run())
    assert isinstance(outcome, Dead)
    assert outcome.reason == "crashed"


@pytest.mark.parametrize("how", ["no room", "not ready"])
def test_a_message_is_postponed_without_counting_a_crash_if_no_process_can_be_started(scene: Scene, how: str) -> None:
    if how == "no room":
        scene.fails = [OSError("no room")]
    else:
        scene.gets_ready = False
    outcome = scene.isolation().run(scene.run())
    assert isinstance(outcome, Postpone), "no attempt, no crash"
    assert all(process.closed for process in scene.started)


def test_a_process_that_died_while_idle_is_replaced(scene: Scene) -> None:
    isolation = scene.isolation()
    isolation.run(scene.run())
    scene.started[0].is_alive = False
    assert isolation.run(scene.run()) == Done(b"1")
    assert [process.closed for process in scene.started] == [True, False]


def test_one_process_is_kept_ready_if_they_are_started_ahead(scene: Scene) -> None:
    isolation = scene.isolation(ahead=True)
    isolation.beat(time.monotonic())
    isolation.beat(time.monotonic())
    assert len(scene.started) == 1
    isolation.run(scene.run())
    assert len(scene.started) == 1
    scene.started[0].idle_since = -math.inf
    isolation.beat(time.monotonic())
    assert not scene.started[0].closed
    scene.started[0].is_alive = False
    isolation.beat(time.monotonic())
    assert [process.closed for process in scene.started] == [True, False]


def test_children_left_by_an_idle_process_delay_the_stop_of_the_worker_and_nothing_else(scene: Scene) -> None:
    isolation = scene.isolation()
    isolation.run(scene.run())
    isolation.run(scene.run())
    scene.started[0].leaves_others.set()
    scene.started[0].is_alive = False
    isolation.beat(time.monotonic())
    assert not scene.started[0].closed
    scene.started[0].leaves_others.clear()
    wait_until(lambda: scene.started[0].closed)
    isolation.run(scene.run())
    scene.started[1].leaves_others.set()
    ends = threading.Timer(0.1, scene.started[1].leaves_others.clear)
    ends.start()
    isolation.stop(isolation_module.SHUTDOWN_GRACE)
    assert scene.started[1].closed


@pytest.mark.parametrize("how", ["no room", "it ends"])
def test_a_spare_process_that_fails_is_started_again_only_after_a_delay(
    scene: Scene, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    isolation = scene.isolation(ahead=True)
    room = OSError("no room")
    scene.fails = [room, room] if how == "no room" else []
    isolation.beat(time.monotonic())
    for process in scene.started:
        process.is_alive = False
    isolation.beat(time.monotonic())
    isolation.beat(time.monotonic())
    assert (len(scene.started), scene.fails) == ((0, [room]) if how == "no room" else (1, []))
    later = time.monotonic() + isolation_module.RETRY_AHEAD_AFTER
    scene.fails = []
    monkeypatch.setattr(time, "monotonic", lambda: later)
    isolation.beat(time.monotonic())
    assert not scene.started[-1].closed


def test_a_process_that_is_idle_for_long_is_ended(scene: Scene) -> None:
    isolation = scene.isolation()
    isolation.beat(time.monotonic())
    assert scene.started == []
    isolation.run(scene.run())
    isolation.beat(time.monotonic())
    assert not scene.started[0].closed
    scene.started[0].idle_since = -math.inf
    isolation.beat(time.monotonic())
    assert scene.started[0].dismissed
    assert scene.started[0].closed


def test_a_process_that_does_not_exit_when_dismissed_is_ended_after_the_shutdown_grace(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    isolation = scene.isolation()
    isolation.run(scene.run())
    (process,) = scene.started
    process.idle_since, process.leaves = -math.inf, False
    isolation.beat(time.monotonic())
    isolation.beat(time.monotonic())
    assert (process.dismissed, process.closed) == (True, False)
    later = time.monotonic() + isolation_module.SHUTDOWN_GRACE
    monkeypatch.setattr(time, "monotonic", lambda: later)
    isolation.beat(time.monotonic())
    assert process.closed


def test_a_process_is_replaced_after_many_runs(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation_module, "MAX_RUNS", 2)
    isolation = scene.isolation()
    for _ in range(3):
        isolation.run(scene.run())
    assert [process.runs for process in scene.started] == [2, 1]


def test_runs_are_abandoned_without_an_outcome_when_the_worker_stops(scene: Scene) -> None:
    isolation = scene.isolation()

    def answer() -> Answer:
        isolation.stop(isolation_module.SHUTDOWN_GRACE)
        assert scene.started[0].killed.is_set()
        return Crash(-9)

    scene.answer = answer
    with pytest.raises(RunAbandoned):
        isolation.run(scene.run())
    with pytest.raises(RunAbandoned):
        isolation.run(scene.run())


def test_idle_processes_are_ended_when_the_worker_stops(scene: Scene) -> None:
    isolation = scene.isolation(ahead=True)
    isolation.beat(time.monotonic())
    isolation.stop(isolation_module.SHUTDOWN_GRACE)
    assert scene.started[0].dismissed
    assert scene.started[0].closed
    isolation.beat(time.monotonic())
    assert len(scene.started) == 1


# ---- cancels --------------------------------------------------------------------------------------------------------


def test_a_cancelled_run_is_shown_to_its_process_and_killed_with_force(scene: Scene) -> None:
    isolation = scene.isolation()
    cancelled: list[bool] = []
    run = scene.run(cancelled=lambda _: bool(cancelled))
    seen: list[bool] = []

    def answer() -> Answer:
        process = scene.started[0]
        cancelled.append(True)
        seen.append(isolation.cancel(run.delivery, force=False))
        assert not process.killed.is_set()
        assert not isolation.cancel(scene.run().delivery, force=True), "another message"
        seen.append(isolation.cancel(run.delivery, force=True))
        assert process.killed.is_set()
        return Crash(-9)

    scene.answer = answer
    outcome = isolation.run(run)
    assert isinstance(outcome, Cancelled)
    assert outcome.failure.error_type == "amqpworker.errors.TaskCancelled"
    assert seen == [True, True]
    assert scene.started[0].shows_cancelled == [False, True, True]
    assert not isolation.cancel(run.delivery, force=True), "it has ended"


def test_a_run_that_was_cancelled_while_its_process_started_does_not_start(scene: Scene) -> None:
    isolation = scene.isolation()
    assert isinstance(isolation.run(scene.run(cancelled=lambda _: True)), Cancelled)
    assert scene.started[0].runs == 0
    assert isolation.run(scene.run()) == Done(b"1"), "its process is kept"
    assert len(scene.started) == 1


def test_a_cancelled_run_that_crashes_its_process_is_not_run_again(scene: Scene) -> None:
    isolation = scene.isolation()
    answers = iter((False, True))
    scene.answer = lambda: Crash(-11)
    outcome = isolation.run(scene.run(cancelled=lambda _: next(answers)))
    assert isinstance(outcome, Cancelled)
    assert "SIGSEGV" in outcome.failure.text


def test_a_process_that_is_killed_as_it_returns_its_outcome_is_not_reused(scene: Scene) -> None:
    isolation = scene.isolation()
    run = scene.run()

    def answer() -> Answer:
        assert isolation.cancel(run.delivery, force=True)
        return DONE

    scene.answer = answer
    assert isolation.run(run) == Done(b"1")
    scene.answer = lambda: DONE
    assert isolation.run(scene.run()) == Done(b"1")
    assert len(scene.started) == 2
