"""Runner threads and coroutines: each delivery is started once, settled in any case, and no thread is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from amqpworker.broker.consumer_channel import ConsumerChannel, Subscription
from amqpworker.errors import NoCurrentTask
from amqpworker.model.message import Delivery
from amqpworker.model.outcome import Dead, Done, Outcome, Retry
from amqpworker.worker.context import Run, current
from amqpworker.worker.executor import TaskExecutor
from amqpworker.worker.pipeline import Pipeline
from amqpworker.worker.threads import Concurrency, RunnerThreads
from tests.support import wait_until
from tests.unit.worker.settling import Bench, NoIsolation, registered


class Settled:
    """A settler that notes outcomes."""

    storer = None

    def __init__(self) -> None:
        self.outcomes: list[tuple[int, Outcome]] = []

    def settle(self, delivery: Delivery, outcome: Outcome, _run: Run | None = None) -> None:
        self.outcomes.append((delivery.tag, outcome))

    def of(self, delivery: Delivery) -> Outcome:
        return next(outcome for tag, outcome in self.outcomes if tag == delivery.tag)


class Scene:
    """Runners with tasks; `run` hands them deliveries and waits until they are settled."""

    def __init__(self) -> None:
        self.bench = Bench()
        self.settled = Settled()
        self.isolation: Any = NoIsolation()
        self.tasks: dict[str, Any] = {}
        self.started: list[RunnerThreads] = []

    def task(self, function: Callable[..., Any], stores: bool = False, retry: Any = None) -> str:
        name = function.__name__
        self.tasks[name] = registered(function, retry, name=name, stores_result=stores)
        return name

    def start(self, threads: int = 1, async_tasks: int = 100) -> RunnerThreads:
        return self.begin(Concurrency(threads, async_tasks))

    def begin(self, concurrency: Concurrency) -> RunnerThreads:
        runners = RunnerThreads(Pipeline(TaskExecutor(self.tasks, True), self.settled, self.isolation), concurrency)
        self.started.append(runners)
        runners.start()
        return runners

    def start_groups(self, own: dict[str, int], threads: int = 1) -> RunnerThreads:
        return self.begin(Concurrency(threads, 10, own))

    def put(self, runners: RunnerThreads, name: str, body: bytes = b"{}", queue: str = "") -> Delivery:
        delivery = self.bench.delivery(body, type=name)
        delivery.queue = queue or delivery.queue
        runners.put(delivery)
        return delivery

    def wait_for(self, count: int) -> None:
        wait_until(lambda: len(self.settled.outcomes) >= count, 10, f"{count} settled deliveries")


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    for runners in made.started:
        runners.stop()


def test_a_requeued_delivery_is_not_started(scene: Scene) -> None:
    ran: list[int] = []
    go = threading.Event()

    def hold() -> None:
        go.wait(10)

    def note() -> None:
        ran.append(1)

    runners = (scene.task(hold), scene.task(note), scene.start())[-1]
    scene.put(runners, "hold")
    gone = scene.put(runners, "note")
    scene.put(runners, "note")
    del scene.bench.channel.unclaimed[gone.tag]
    go.set()
    scene.wait_for(2)
    assert ran == [1]


@pytest.mark.parametrize("kind", ["thread", "coroutine"])
def test_bodies_of_requeued_deliveries_are_freed_while_every_slot_is_in_use(scene: Scene, kind: str) -> None:
    go = threading.Event()

    def hold() -> None:
        go.wait(10)

    async def hold_loop() -> None:
        await asyncio.to_thread(go.wait, 10)

    name = scene.task(hold) if kind == "thread" else scene.task(hold_loop)
    runners = scene.start(threads=1, async_tasks=1)
    first = scene.put(runners, name)
    wait_until(lambda: first.tag not in scene.bench.channel.unclaimed, 10, "the first runs")
    body = b"{%s}" % (b" " * 1000)
    mine = sys.getrefcount(body)
    for _ in range(2):
        del scene.bench.channel.unclaimed[scene.put(runners, name, body).tag]
    kept = scene.put(runners, name)
    assert sys.getrefcount(body) > mine
    runners.drop_requeued()
    assert sys.getrefcount(body) == mine
    go.set()
    scene.wait_for(2)
    assert [tag for tag, _ in scene.settled.outcomes] == [first.tag, kept.tag]


def test_a_delivery_is_running_until_it_is_settled(scene: Scene) -> None:
    go = threading.Event()

    def hold() -> None:
        go.wait(10)

    runners = (scene.task(hold), scene.start(2))[-1]
    scene.put(runners, "hold")
    wait_until(lambda: runners.running)
    assert not runners.is_idle
    go.set()
    wait_until(lambda: runners.is_idle)
    assert scene.settled.outcomes


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise SystemExit("even this")


def deeper(depth: int) -> int:
    return deeper(depth + 1)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        StopIteration(1),
        asyncio.CancelledError(),
        BaseException("bare"),
        Unspeakable(),
        MemoryError(),
        BaseExceptionGroup("several", [KeyboardInterrupt(), ValueError()]),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("kind", ["thread", "coroutine"])
def test_any_exception_of_a_task_is_an_outcome_and_the_next_task_runs(
    scene: Scene, error: BaseException, kind: str
) -> None:
    def fail() -> None:
        raise error

    async def fail_later() -> None:
        await asyncio.sleep(0)
        raise error

    def fine() -> None: ...

    async def fine_later() -> None: ...

    names = [scene.task(one) for one in (fail, fine)] if kind == "thread" else []
    names = names or [scene.task(one) for one in (fail_later, fine_later)]
    runners = scene.start()
    bad, good = (scene.put(runners, name) for name in names)
    scene.wait_for(2)
    outcome = scene.settled.of(bad)
    assert isinstance(outcome, Dead)
    assert outcome.reason == "failed"
    assert type(error).__name__ in outcome.failure.error_type or type(error) is StopIteration
    assert scene.settled.of(good) == Done()


def test_a_task_that_recurses_for_ever_fails_and_the_next_runs(scene: Scene) -> None:
    def recurse() -> int:
        return deeper(0)

    def fine() -> None: ...

    runners = (scene.task(recurse), scene.task(fine), scene.start())[-1]
    bad, good = scene.put(runners, "recurse"), scene.put(runners, "fine")
    scene.wait_for(2)
    outcome = scene.settled.of(bad)
    assert isinstance(outcome, Dead)
    assert outcome.failure.error_type == "RecursionError"
    assert scene.settled.of(good) == Done()


def test_a_message_is_settled_even_if_its_policy_raises_a_base_exception(scene: Scene) -> None:
    from tenacity import Retrying, retry_if_exception, stop_after_attempt

    def interrupt(_: BaseException) -> bool:
        raise KeyboardInterrupt

    def fail() -> None:
        raise ValueError

    scene.task(fail, retry=Retrying(stop=stop_after_attempt(3), retry=retry_if_exception(interrupt)))
    runners = scene.start()
    bad = scene.put(runners, "fail")
    scene.wait_for(1)
    assert isinstance(scene.settled.of(bad), Dead)


def test_current_returns_a_run_only_in_the_thread_of_the_run(scene: Scene) -> None:
    seen: list[Any] = []

    def look() -> None:
        seen.append(current().id)
        inner = threading.Thread(target=ask)
        inner.start()
        inner.join()

    def ask() -> None:
        try:
            current()
        except NoCurrentTask as error:
            seen.append(error)

    runners = (scene.task(look), scene.start())[-1]
    delivery = scene.put(runners, "look")
    scene.wait_for(1)
    assert seen[0] == delivery.properties.message_id
    assert isinstance(seen[1], NoCurrentTask)
    with pytest.raises(NoCurrentTask, match="outside a task"):
        current()


# ---- queues with threads of their own -----------------------------------------------------------------------------------


@pytest.mark.parametrize("own", [{"reports": 1}, {"reports": 1, "emails": 1}], ids=str)
def test_a_queue_with_threads_of_its_own_does_not_delay_other_queues(scene: Scene, own: dict[str, int]) -> None:
    go = threading.Event()

    def hold() -> None:
        go.wait(10)

    def quick() -> None: ...

    runners = (scene.task(hold), scene.task(quick), scene.start_groups(own))[-1]
    for _ in range(3):
        scene.put(runners, "hold", queue="reports")
    emails = [scene.put(runners, "quick", queue="emails") for _ in range(3)]
    try:
        scene.wait_for(3)
        assert [scene.settled.of(one) for one in emails] == [Done()] * 3
        wait_until(lambda: len(runners.running) == 1, what="one run alone is left")
    finally:
        go.set()
    scene.wait_for(6)


def test_the_threads_of_a_queue_serve_only_that_queue(scene: Scene) -> None:
    began: list[str] = []
    go = threading.Event()

    def hold() -> None:
        began.append(current().queue)
        go.wait(10)

    runners = (scene.task(hold), scene.start_groups({"reports": 3}, threads=1))[-1]
    for _ in range(2):
        scene.put(runners, "hold", queue="emails")
    for _ in range(3):
        scene.put(runners, "hold", queue="reports")
    wait_until(lambda: len(began) == 4)
    assert sorted(began) == ["emails", "reports", "reports", "reports"]
    go.set()
    scene.wait_for(5)


def test_requeued_deliveries_that_wait_for_the_threads_of_a_queue_are_freed(scene: Scene) -> None:
    go = threading.Event()

    def hold() -> None:
        go.wait(10)

    runners = (scene.task(hold), scene.start_groups({"reports": 1}))[-1]
    first = scene.put(runners, "hold", queue="reports")
    wait_until(lambda: first.tag not in scene.bench.channel.unclaimed)
    body = b"{%s}" % (b" " * 1000)
    mine = sys.getrefcount(body)
    del scene.bench.channel.unclaimed[scene.put(runners, "hold", body, queue="reports").tag]
    runners.drop_requeued()
    assert sys.getrefcount(body) == mine
    go.set()
    scene.wait_for(1)


def test_coroutines_of_a_queue_with_threads_of_its_own_run_in_the_event_loop(scene: Scene) -> None:
    seen: list[str] = []

    async def look() -> None:
        seen.append(threading.current_thread().name)

    runners = (scene.task(look), scene.start_groups({"reports": 1}))[-1]
    scene.put(runners, "look", queue="reports")
    scene.wait_for(1)
    assert seen == ["amqpworker-event-loop"]


def test_without_threads_per_queue_deliveries_are_put_directly_into_one_queue(scene: Scene) -> None:
    def quick() -> None: ...

    runners = (scene.task(quick), scene.start())[-1]
    assert runners.put.__name__ == "put"
    assert type(getattr(runners.put, "__self__", None)).__name__ == "SimpleQueue"


@pytest.mark.parametrize("kind", ["thread", "own thread", "coroutine"])
def test_what_a_bounded_queue_accepted_before_is_run_before_its_new_work(scene: Scene, kind: str) -> None:
    go = threading.Event()

    def hold() -> None:
        go.wait(10)

    async def hold_loop() -> None:
        await asyncio.to_thread(go.wait, 10)

    name = scene.task(hold_loop) if kind == "coroutine" else scene.task(hold)
    own = {"work": 1} if kind == "own thread" else {}
    runners = scene.begin(Concurrency(1, 1, own, bounded=frozenset({"work"})))
    first = scene.put(runners, name, queue="work")
    wait_until(lambda: first.tag not in scene.bench.channel.unclaimed, 10, "the first runs")
    new = [scene.put(runners, name, queue="work").tag for _ in range(2)]
    receiver: Any = scene.bench
    scene.bench.channel = ConsumerChannel(Subscription("work.due", 10, beside="work"), receiver, lambda: None)
    due = [scene.put(runners, name, queue="work").tag for _ in range(2)]
    go.set()
    scene.wait_for(5)
    assert [tag for tag, _ in scene.settled.outcomes] == [first.tag, *due, *new]


# ---- coroutines -----------------------------------------------------------------------------------------------------


def test_no_more_coroutines_run_at_once_than_there_are_slots(scene: Scene) -> None:
    now: list[int] = []
    most: list[int] = []

    async def step() -> None:
        now.append(1)
        most.append(len(now))
        for _ in range(5):
            await asyncio.sleep(0)
        now.pop()

    runners = (scene.task(step), scene.start(async_tasks=3))[-1]
    for _ in range(20):
        scene.put(runners, "step")
    scene.wait_for(20)
    assert max(most) == 3
    assert {outcome for _, outcome in scene.settled.outcomes} == {Done()}


def test_a_coroutine_that_waits_for_a_slot_can_still_be_requeued(scene: Scene) -> None:
    ran: list[str] = []
    go = threading.Event()

    async def hold() -> None:
        ran.append(current().id)
        while not go.is_set():
            await asyncio.sleep(0.001)

    runners = (scene.task(hold), scene.start(async_tasks=1))[-1]
    first, second, third = (scene.put(runners, "hold") for _ in range(3))
    wait_until(lambda: ran)
    assert list(scene.bench.channel.unclaimed) == [second.tag, third.tag], "unclaimed: they have not started"
    del scene.bench.channel.unclaimed[second.tag]
    go.set()
    scene.wait_for(2)
    assert ran == [first.properties.message_id, third.properties.message_id]
    wait_until(lambda: runners.is_idle)


def test_a_coroutine_does_not_wait_for_a_thread(scene: Scene) -> None:
    go = threading.Event()

    def hold() -> None:
        go.wait(10)

    async def quick() -> int:
        return 1

    runners = (scene.task(hold), scene.task(quick, stores=True), scene.start(threads=1))[-1]
    scene.put(runners, "hold")
    later = scene.put(runners, "quick")
    try:
        scene.wait_for(1)
        assert scene.settled.of(later) == Done(b"1")
    finally:
        go.set()


def test_each_coroutine_has_a_current_run_of_its_own(scene: Scene) -> None:
    seen: list[tuple[str, str]] = []

    async def look() -> None:
        mine = current().id
        for _ in range(5):
            await asyncio.sleep(0)
        seen.append((mine, current().id))

    runners = (scene.task(look), scene.start())[-1]
    for _ in range(10):
        scene.put(runners, "look")
    scene.wait_for(10)
    assert len({mine for mine, _ in seen}) == 10
    assert all(mine == later for mine, later in seen)


def test_a_coroutine_that_cancels_itself_has_failed_and_the_next_runs(scene: Scene) -> None:
    async def cancel() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    async def fine() -> None: ...

    runners = (scene.task(cancel), scene.task(fine), scene.start(async_tasks=1))[-1]
    bad, good = scene.put(runners, "cancel"), scene.put(runners, "fine")
    scene.wait_for(2)
    assert isinstance(scene.settled.of(bad), Dead)
    assert scene.settled.of(good) == Done()


def test_a_coroutine_that_stops_the_event_loop_does_not_stop_the_others(scene: Scene) -> None:
    async def stop() -> None:
        asyncio.get_running_loop().stop()

    async def fine() -> None:
        await asyncio.sleep(0.001)

    runners = (scene.task(stop), scene.task(fine), scene.start())[-1]
    scene.put(runners, "stop")
    good = scene.put(runners, "fine")
    scene.wait_for(2)
    assert scene.settled.of(good) == Done()


def test_a_system_exit_in_something_that_a_coroutine_started_does_not_stop_the_others(scene: Scene) -> None:
    """Asyncio lets SystemExit and KeyboardInterrupt out of its loop, whatever code raised them."""

    async def leave() -> None:
        async def inner() -> None:
            sys.exit(3)

        await asyncio.gather(inner())

    async def leave_later() -> None:
        asyncio.get_running_loop().call_soon(sys.exit, 1)

    async def fine() -> None: ...

    runners = (scene.task(leave), scene.task(leave_later), scene.task(fine), scene.start())[-1]
    first = scene.put(runners, "leave")
    scene.put(runners, "leave_later")
    last = scene.put(runners, "fine")
    scene.wait_for(3)
    assert isinstance(scene.settled.of(first), Dead)
    assert scene.settled.of(last) == Done()


def test_a_coroutine_that_was_cancelled_before_its_first_step_is_started_again(scene: Scene) -> None:
    go = threading.Event()

    async def cancel_others() -> None:
        go.wait(10)  # so that the next waits in the loop, not yet begun
        await asyncio.sleep(0)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    async def fine() -> None: ...

    runners = (scene.task(cancel_others), scene.task(fine), scene.start(async_tasks=2))[-1]
    scene.put(runners, "cancel_others")
    following = [scene.put(runners, "fine") for _ in range(3)]
    go.set()
    scene.wait_for(4)
    assert [scene.settled.of(one) for one in following] == [Done()] * 3


@pytest.mark.parametrize("kind", ["thread", "coroutine"])
def test_a_forked_child_that_returns_from_its_task_exits(scene: Scene, tmp_path: Path, kind: str) -> None:
    ran = tmp_path / "ran"

    def note() -> None:
        with ran.open("a") as file:
            file.write(f"{os.getpid()}\n")

    children: list[int] = []

    def fork() -> None:
        if child := os.fork():
            children.append(child)

    async def fork_later() -> None:
        fork()

    name = scene.task(fork) if kind == "thread" else scene.task(fork_later)
    runners = (scene.task(note), scene.start())[-1]
    scene.put(runners, name)
    scene.put(runners, "note")
    scene.wait_for(2)
    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 1
    assert ran.read_text().split() == [str(os.getpid())]


def test_a_coroutine_that_is_still_running_when_its_runners_stop_is_cancelled_and_not_settled(scene: Scene) -> None:
    """Its message is redelivered: a dead letter beside it would be wrong."""
    cleaned: list[bool] = []
    began = threading.Event()

    async def endless() -> None:
        began.set()
        try:
            await asyncio.sleep(3600)
        finally:
            cleaned.append(True)

    runners = (scene.task(endless, retry=[1]), scene.start(async_tasks=1))[-1]
    scene.put(runners, "endless")
    waiting = scene.put(runners, "endless")
    assert began.wait(10)
    runners.stop()
    assert cleaned == [True]
    assert scene.settled.outcomes == []
    assert waiting.tag in scene.bench.channel.unclaimed
    assert not [one for one in threading.enumerate() if one.name == "amqpworker-event-loop" and one.is_alive()]


def test_an_abandoned_coroutine_is_not_settled_even_if_it_suppresses_its_cancellation(scene: Scene) -> None:
    """Half of its work is done: an acknowledgement would be the end of the other half."""
    began = threading.Event()

    async def unfinished() -> None:
        began.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)

    runners = (scene.task(unfinished), scene.start())[-1]
    scene.put(runners, "unfinished")
    assert began.wait(10)
    runners.abandon()
    assert scene.settled.outcomes == []
    assert runners.event_loop.run_coroutine(asyncio.sleep(0, "the loop still runs")) == "the loop still runs"


def test_an_abandoned_coroutine_that_blocks_its_loop_can_still_succeed_but_its_failure_is_not_settled(
    scene: Scene,
) -> None:
    go = threading.Event()
    began = threading.Event()

    async def fails() -> None:
        began.set()
        go.wait(10)
        raise OSError

    async def succeeds() -> None:
        began.set()
        go.wait(10)

    for function, outcomes in ((fails, []), (succeeds, [Done()])):
        runners = (scene.task(function), scene.start())[-1]
        began.clear()
        go.clear()
        scene.put(runners, function.__name__)
        assert began.wait(10)
        runners.abandon()
        go.set()
        runners.event_loop.run_coroutine(asyncio.sleep(0))
        assert [outcome for _, outcome in scene.settled.outcomes] == outcomes


def test_an_abandoned_coroutine_that_cancels_all_asyncio_tasks_blocks_nothing(scene: Scene) -> None:
    began = threading.Event()

    async def cancels() -> None:
        began.set()
        try:
            await asyncio.sleep(3600)
        finally:
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

    runners = (scene.task(cancels), scene.start())[-1]
    scene.put(runners, "cancels")
    assert began.wait(10)
    runners.abandon()
    assert scene.settled.outcomes == []


def test_a_task_in_an_abandoned_thread_can_still_succeed_but_its_failure_is_not_settled(scene: Scene) -> None:
    """What it used has most likely been closed under it."""
    go = threading.Event()
    running = threading.Barrier(3)

    def fails() -> None:
        running.wait(10)
        go.wait(10)
        raise OSError

    def succeeds() -> None:
        running.wait(10)
        go.wait(10)

    runners = (scene.task(fails, retry=[1]), scene.task(succeeds), scene.start(threads=2))[-1]
    scene.put(runners, "fails")
    finished = scene.put(runners, "succeeds")
    running.wait(10)
    runners.abandon()
    go.set()
    wait_until(lambda: runners.is_idle)
    assert scene.settled.outcomes == [(finished.tag, Done())]


def test_nothing_is_settled_after_results_are_discarded(scene: Scene) -> None:
    go = threading.Event()
    running = threading.Barrier(3)

    def in_thread() -> None:
        running.wait(10)
        go.wait(10)

    async def holds_up_its_loop() -> None:
        in_thread()

    runners = (scene.task(in_thread), scene.task(holds_up_its_loop), scene.start())[-1]
    scene.put(runners, "in_thread")
    scene.put(runners, "holds_up_its_loop")
    running.wait(10)
    runners.abandon()
    runners.discard_results()
    go.set()
    runners.event_loop.run_coroutine(asyncio.sleep(0))
    wait_until(lambda: not [one for one in runners.running if one == 1], what="the thread's task has ended")
    assert scene.settled.outcomes == []


def test_a_coroutine_awaited_beside_the_tasks_has_a_timeout(scene: Scene) -> None:
    runners = scene.start()
    with pytest.raises(TimeoutError):
        runners.event_loop.run_coroutine(asyncio.sleep(3600), 0.01)


def test_a_coroutine_has_the_same_outcomes_as_other_tasks(scene: Scene) -> None:
    async def fail() -> None:
        raise OSError

    runners = (scene.task(fail, retry=[7]), scene.start())[-1]
    first = scene.put(runners, "fail")
    second = scene.put(runners, "fail", b"not JSON")
    scene.wait_for(2)
    outcome = scene.settled.of(first)
    assert isinstance(outcome, Retry)
    assert outcome.delay == 7
    refused = scene.settled.of(second)
    assert isinstance(refused, Dead)
    assert refused.reason == "malformed"


def test_there_is_room_for_a_queue_while_a_thread_that_serves_it_and_a_slot_in_the_event_loop_are_free(
    scene: Scene,
) -> None:
    go = threading.Event()

    def hold() -> None:
        go.wait(10)

    async def hold_loop() -> None:
        await asyncio.to_thread(go.wait, 10)

    tasks = scene.task(hold), scene.task(hold_loop)
    runners = scene.begin(Concurrency(1, 1, {"own": 1}))
    rooms = [runners.has_room("own"), runners.has_room("work")]
    assert rooms == [True, True]
    thread = scene.put(runners, tasks[0], queue="own")
    wait_until(lambda: thread.tag not in scene.bench.channel.unclaimed, 10, "it runs")
    assert not runners.has_room("own")
    assert runners.has_room("work")
    loop = scene.put(runners, tasks[1])
    wait_until(lambda: loop.tag not in scene.bench.channel.unclaimed, 10, "it runs, too")
    assert not runners.has_room("work")
    go.set()
    scene.wait_for(2)
    wait_until(lambda: runners.has_room("own") and runners.has_room("work"), 10, "room for both")
