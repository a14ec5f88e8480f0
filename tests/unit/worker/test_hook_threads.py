"""The threads that call hooks: each hook once, none longer than its time, and whatever one raises changes nothing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from amqpworker import current
from amqpworker.hooks import Settled
from amqpworker.model.outcome import Done
from amqpworker.policies.hook_functions import Hook, Hooks
from amqpworker.worker import hook_threads
from amqpworker.worker.hook_calls import HookTable
from amqpworker.worker.hook_threads import HookThreads
from tests.support import wait_until
from tests.unit.worker.settling import Bench
from tests.unit.worker.test_middleware import Loop


class Scene:
    """Threads for hooks of successes, which end with the test; `now` is what their clock shows."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.hooks = Hooks()
        self.now = 0.0
        self.seconds = hook_threads.HOOK_SECONDS
        self.made: list[HookThreads] = []
        self.numbers = iter(range(1, 10**9))

    def start(self, *hooks: Hook) -> HookThreads:
        """Start the threads for these hooks."""
        for hook in hooks:
            self.hooks.add("on_success", hook)
        threads = HookThreads(HookTable(self.hooks, {}), self.loop.run, self.seconds, lambda: self.now)
        self.made.append(threads)
        threads.start()
        return threads

    def event(self, value: object = None) -> Settled:
        bench = Bench()
        delivery = bench.delivery(message_id=f"m-{next(self.numbers)}")
        run = bench.started(delivery)
        run.returned = value
        return Settled(delivery, Done(), run, 0.0)


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    for threads in made.made:
        threads.end()
    made.loop.close()


def done(threads: HookThreads) -> None:
    wait_until(threads.are_done, 5, "no hook waits or runs")


def lines(caplog: pytest.LogCaptureFixture, event: str) -> list[str]:
    return [line for record in caplog.records if event in (line := record.getMessage())]


@pytest.mark.parametrize("kind", ["def", "async def", "a function that returns a coroutine"])
def test_a_hook_is_called_once_outside_the_io_thread_and_current_is_its_run(scene: Scene, kind: str) -> None:
    calls: list[tuple[object, object, str]] = []

    def note(run: object, value: object) -> None:
        assert current() is run
        calls.append((run, value, threading.current_thread().name))

    async def anote(run: object, value: object) -> None:
        await asyncio.sleep(0)
        note(run, value)

    hooks: dict[str, Hook] = {"def": note, "async def": anote}
    threads = scene.start(hooks.get(kind, partial(anote)))
    event = scene.event(41)
    threads.on_settled([event])
    done(threads)
    ((run, value, thread),) = calls
    assert (run, value) == (event.run, 41)
    assert (thread == "amqpworker-hooks") == (kind == "def")


@pytest.mark.parametrize("error", [ValueError("broken"), SystemExit(3), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("is_async", [False, True])
def test_a_hook_that_raises_is_logged_and_the_next_one_is_called(
    scene: Scene, caplog: pytest.LogCaptureFixture, error: BaseException, is_async: bool
) -> None:
    def fails(*_: object) -> None:
        raise error

    async def afails(*_: object) -> None:
        raise error

    seen: list[object] = []
    threads = scene.start(afails if is_async else fails, lambda _, value: seen.append(value))
    threads.on_settled([scene.event(1), scene.event(2)])
    done(threads)
    assert sorted(seen, key=repr) == [1, 2]
    failed = lines(caplog, "hook_failed")
    assert len(failed) == 2
    assert f"{'afails' if is_async else 'fails'}" in failed[0]
    assert "m-1" in "".join(failed)


def test_a_coroutine_that_takes_too_long_is_cancelled(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    cancelled = threading.Event()

    async def hangs(*_: object) -> None:
        try:
            await asyncio.sleep(600)
        finally:
            cancelled.set()

    seen: list[object] = []
    scene.seconds = 0.05
    threads = scene.start(hangs, lambda _, value: seen.append(value))
    threads.on_settled([scene.event("value")])
    done(threads)
    assert cancelled.wait(5)
    assert seen == ["value"]
    assert "hook_failed" in caplog.text
    assert "it has not ended within 0.05 s, and was cancelled" in caplog.text


def test_a_thread_whose_hook_takes_too_long_is_left_behind_and_the_next_hook_is_called_by_another(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    release = threading.Event()
    began: list[object] = []
    seen: list[Any] = []

    def hangs(_run: object, value: object) -> None:
        began.append(value)
        release.wait(30)

    threads = scene.start(hangs, lambda _, value: seen.append(value))
    threads.on_settled([scene.event(number) for number in range(hook_threads.THREADS + 1)])
    wait_until(lambda: len(began) == hook_threads.THREADS, 5, "all threads hang")
    scene.now += 10.4
    threads.beat(scene.now)
    assert "hook_abandoned" not in caplog.text, "they still have time"
    scene.now += 0.2
    threads.beat(scene.now)
    wait_until(lambda: len(began) == hook_threads.THREADS + 1, 5, "the last one is called, too")
    wait_until(lambda: len(seen) == hook_threads.THREADS, 5, "so is the second hook of each")
    assert len(lines(caplog, "hook_abandoned")) == hook_threads.THREADS
    scene.now += 11
    done(threads)
    assert sorted(seen) == list(range(hook_threads.THREADS + 1))
    release.set()
    wait_until(lambda: threads._abandoned == 0, 5, "the threads that were left behind end")
    assert sorted(seen) == list(range(hook_threads.THREADS + 1)), "none is called twice"


def test_a_process_whose_hooks_all_hang_starts_no_more_threads(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    began: list[object] = []

    def hangs(_run: object, value: object) -> None:
        began.append(value)
        release.wait(30)

    monkeypatch.setattr(hook_threads, "MAX_ABANDONED", 4)
    threads = scene.start(hangs)
    threads.on_settled([scene.event(number) for number in range(9)])
    wait_until(lambda: len(began) == hook_threads.THREADS, 5, "all threads hang")
    scene.now += 11
    assert threads.are_done(), "nothing can be waited for"
    assert threads.waiting == 5
    release.set()

    def all_began() -> bool:
        threads.beat(scene.now)
        return len(began) == 9

    wait_until(all_began, 5, "the others are called once there are threads again")


def test_hooks_of_too_many_deliveries_are_dropped_and_counted(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    release = threading.Event()
    seen: list[Any] = []

    def waits(_run: object, value: object) -> None:
        release.wait(30)
        seen.append(value)

    monkeypatch.setattr(hook_threads, "MAX_WAITING", 6)
    threads = scene.start(waits)
    threads.on_settled([scene.event(number) for number in range(8)])
    threads.on_settled([scene.event(number) for number in range(8, 10)])
    (line,) = lines(caplog, "hooks_dropped")
    assert "count=2 waiting=6" in line
    scene.now += hook_threads.WARN_AFTER
    threads.on_settled([scene.event("one more")])
    assert len(lines(caplog, "hooks_dropped")) == 2
    release.set()
    wait_until(lambda: len(seen) == 6, 5, "the others are called")
    assert sorted(seen) == list(range(6))


def test_large_messages_that_wait_for_their_hooks_are_bounded_too(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    release = threading.Event()
    monkeypatch.setattr(hook_threads, "MAX_WAITING_BYTES", 3)
    threads = scene.start(lambda *_: release.wait(30))
    threads.on_settled([scene.event() for _ in range(3)])  # each body has two bytes
    assert threads.waiting == 2
    assert "hooks_dropped" in caplog.text
    release.set()
    done(threads)


def test_coroutines_run_in_a_loop_of_their_own_once_that_of_the_process_ends(scene: Scene) -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    async def note(*_: object) -> None:
        loops.append(asyncio.get_running_loop())

    threads = scene.start(note)
    threads.stop(2.0)
    threads.on_settled([scene.event()])
    done(threads)
    assert loops != []
    assert scene.loop.loop not in loops


def test_without_hooks_there_are_no_threads_and_nothing_is_waited_for(scene: Scene) -> None:
    before = threading.active_count()
    threads = scene.start()
    assert not threads.is_used
    assert threads.are_done()
    assert threading.active_count() == before


def test_hooks_that_still_wait_at_the_end_are_named_and_not_called(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    release = threading.Event()
    began: list[object] = []

    def waits(_run: object, value: object) -> None:
        began.append(value)
        release.wait(30)

    threads = scene.start(waits)
    threads.on_settled([scene.event(number) for number in range(10)])
    wait_until(lambda: len(began) == hook_threads.THREADS, 5, "all threads are busy")
    assert not threads.are_done()
    threads.end()
    assert "hooks_abandoned" in caplog.text
    ours: list[Callable[[], bool]] = [one.thread.is_alive for one in threads._callers]
    release.set()
    wait_until(lambda: not any(is_alive() for is_alive in ours), 5, "the threads end")
    assert len(began) == hook_threads.THREADS
