"""Middleware: context managers around each run, in threads and in the event loop, which hide no failure."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

from amqpworker import App, Reject, RetryLater, current
from amqpworker.errors import ConfigError, TimeLimitExceeded
from amqpworker.log.logger import task_context
from amqpworker.model.outcome import Dead, Done, Outcome, Snooze
from amqpworker.policies.time_limit import UNLIMITED, TimeLimit
from amqpworker.worker.context import Run
from amqpworker.worker.executor import TaskExecutor
from amqpworker.worker.limits.limits import Limits
from amqpworker.worker.middleware import Middleware, MiddlewareStack
from tests.support import wait_until
from tests.unit.worker.settling import registered
from tests.unit.worker.test_executor import delivery_of

user: ContextVar[str] = ContextVar("user", default="unknown")


class Loop:
    """An event loop in a thread, as a worker process has one."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, Any], timeout: float | None) -> Any:
        future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        try:
            return future.result(timeout)
        except TimeoutError:
            future.cancel()
            raise

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


class Scene:
    """Runs a task inside middleware, as a thread or as a coroutine, and notes what happens in which order."""

    def __init__(self, loop: Loop, kind: str) -> None:
        self.loop = loop
        self.kind = kind
        self.events: list[str] = []
        self.limit = UNLIMITED
        self.limits = Limits(lambda _: None)

    def sync(self, name: str, *, suppress: bool = False) -> Middleware:
        @contextmanager
        def around(run: Run) -> Iterator[None]:
            self.events.append(f"{name} enters {run.task}")
            try:
                yield
            except BaseException as error:
                self.events.append(f"{name} sees {type(error).__name__}")
                if not suppress:
                    raise
            else:
                self.events.append(f"{name} leaves")

        return around

    def asynchronous(self, name: str, *, suppress: bool = False) -> Middleware:
        @asynccontextmanager
        async def around(run: Run) -> AsyncIterator[None]:
            task = asyncio.current_task()
            assert asyncio.get_running_loop() is self.loop.loop
            self.events.append(f"{name} enters {run.task}")
            try:
                yield
            except BaseException as error:
                self.events.append(f"{name} sees {type(error).__name__}")
                if not suppress:
                    raise
            else:
                self.events.append(f"{name} leaves")
            assert asyncio.current_task() is task

        return around

    def run(self, middleware: list[Middleware], function: Callable[[], Any]) -> Outcome:
        async def coroutine() -> Any:
            return function()

        chosen = function if self.kind == "thread" else coroutine
        stack = MiddlewareStack.of(middleware, self.loop.run)
        executor = TaskExecutor({"example": registered(chosen, time_limit=self.limit)}, True, self.limits, stack)
        executor.start()
        run = executor.admit(delivery_of())
        assert isinstance(run, Run)
        task_context.set(run)
        try:
            return executor.call(run) if self.kind == "thread" else self.loop.run(executor.call_async(run), 20)
        finally:
            task_context.set(None)


@pytest.fixture(params=["thread", "coroutine"])
def scene(loop: Loop, request: pytest.FixtureRequest) -> Scene:
    return Scene(loop, request.param)


def test_middleware_is_entered_in_order_and_left_in_reverse_around_the_function(scene: Scene) -> None:
    middleware = [scene.sync("a"), scene.asynchronous("b"), scene.sync("c")]

    def function() -> int:
        scene.events.append(f"runs as {current().id}")
        return 42

    assert scene.run(middleware, function) == Done(b"42")
    assert scene.events == [
        *("a enters example", "b enters example", "c enters example", "runs as id"),
        *("c leaves", "b leaves", "a leaves"),
    ]


def test_middleware_sees_the_failure_of_the_task(scene: Scene) -> None:
    def function() -> None:
        raise OSError("no route")

    outcome = scene.run([scene.sync("a"), scene.asynchronous("b")], function)
    assert isinstance(outcome, Dead)
    assert outcome.failure.error_type == "OSError"
    assert scene.events[2:] == ["b sees OSError", "a sees OSError"]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_middleware_that_would_suppress_a_failure_is_named_and_the_failure_counts(
    scene: Scene, asynchronous: bool, caplog: pytest.LogCaptureFixture
) -> None:
    suppressing = (scene.asynchronous if asynchronous else scene.sync)("a", suppress=True)

    def function() -> None:
        raise OSError("no route")

    outcome = scene.run([scene.sync("outer"), suppressing], function)
    assert isinstance(outcome, Dead)
    assert outcome.failure.error_type == "OSError"
    assert scene.events[-1] == "outer sees OSError"
    assert "middleware_suppressed_failure" in caplog.text
    assert "around" in caplog.text


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("when", ["entering", "leaving"])
def test_an_exception_of_middleware_is_the_failure_of_the_task(scene: Scene, when: str, asynchronous: bool) -> None:
    @contextmanager
    def failing(_run: Run) -> Iterator[None]:
        if when == "entering":
            raise Reject("not now")
        yield
        raise Reject("not after all")

    @asynccontextmanager
    async def failing_async(run: Run) -> AsyncIterator[None]:
        with failing(run):
            yield

    middleware: Middleware = failing_async if asynchronous else failing
    outcome = scene.run([scene.sync("a"), middleware], lambda: scene.events.append("runs"))
    assert isinstance(outcome, Dead)
    assert outcome.reason == "rejected"
    assert ("runs" in scene.events) == (when == "leaving")
    assert scene.events[-1] == "a sees Reject"


def test_middleware_can_have_the_task_run_again_later(scene: Scene) -> None:
    @contextmanager
    def limited(_run: Run) -> Iterator[None]:
        raise RetryLater(delay=30, count=False)
        yield

    outcome = scene.run([limited], lambda: scene.events.append("runs"))
    assert isinstance(outcome, Snooze)
    assert outcome.delay == 30
    assert scene.events == []


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_function_sees_the_context_variables_that_middleware_sets(scene: Scene, asynchronous: bool) -> None:
    @contextmanager
    def named(_run: Run) -> Iterator[None]:
        token = user.set("alice")
        yield
        user.reset(token)

    @asynccontextmanager
    async def named_async(run: Run) -> AsyncIterator[None]:
        with named(run):
            yield

    middleware: Middleware = named_async if asynchronous else named

    def function() -> str:
        return user.get()

    assert scene.run([middleware], function) == Done(b'"alice"')


def test_a_context_variable_that_middleware_does_not_reset_is_not_seen_by_the_next_run(scene: Scene) -> None:
    @contextmanager
    def named(run: Run) -> Iterator[None]:
        user.set(f"{user.get()}, {run.id}")
        yield

    def function() -> str:
        return user.get()

    for _ in range(2):
        assert scene.run([named], function) == Done(b'"unknown, id"')


def is_timed_out(scene: Scene, slow: Middleware) -> bool:
    """Run with a limit of 0.2 s inside a middleware that takes longer; whether the limit held and the others were left."""
    scene.limit = TimeLimit(soft=0.2)
    outcome = scene.run([scene.sync("a"), slow], lambda: scene.events.append("runs"))
    assert isinstance(outcome, Dead)
    return outcome.reason == "timeout" and scene.events[0] == "a enters example" and "runs" not in scene.events


def test_a_time_limit_covers_asynchronous_middleware(scene: Scene) -> None:
    @asynccontextmanager
    async def slow(_run: Run) -> AsyncIterator[None]:
        await asyncio.sleep(30)
        yield

    assert is_timed_out(scene, slow)


def test_a_time_limit_covers_middleware_of_a_thread(loop: Loop) -> None:
    @contextmanager
    def slow(_run: Run) -> Iterator[None]:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            pass
        yield

    assert is_timed_out(Scene(loop, "thread"), slow)


def test_asynchronous_middleware_has_time_to_leave_a_thread_that_is_over_its_limit(loop: Loop) -> None:
    scene = Scene(loop, "thread")
    scene.limit = TimeLimit(soft=0.2)

    @asynccontextmanager
    async def tidies(_run: Run) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await asyncio.sleep(0.3)
            scene.events.append("tidied")

    def function() -> None:
        current().deadline = 0.0  # long ago
        raise OSError("no route")

    assert isinstance(scene.run([tidies], function), Dead)
    assert scene.events == ["tidied"]


@pytest.mark.parametrize("raised", [SystemExit, TimeoutError, KeyboardInterrupt])
@pytest.mark.parametrize("when", ["entering", "leaving"])
def test_any_exception_of_asynchronous_middleware_ends_the_run_and_not_the_event_loop(
    loop: Loop, raised: type[BaseException], when: str
) -> None:
    @asynccontextmanager
    async def failing(_run: Run) -> AsyncIterator[None]:
        if when == "entering":
            raise raised
        yield
        raise raised

    scene = Scene(loop, "thread")
    outcome = scene.run([failing], lambda: None)
    assert isinstance(outcome, Dead)
    assert (outcome.reason, outcome.failure.error_type) == ("failed", raised.__name__)
    assert scene.run([scene.asynchronous("b")], lambda: None) == Done(b"null")


def test_a_database_session_commits_after_the_function_and_rolls_back_if_it_fails(scene: Scene, tmp_path: Path) -> None:
    session: ContextVar[sqlite3.Connection] = ContextVar("session")
    path = tmp_path / "users.db"

    @contextmanager
    def with_session(_run: Run) -> Iterator[None]:
        with closing(sqlite3.connect(path)) as opened, opened:
            session.set(opened)
            yield

    def create() -> None:
        session.get().execute("CREATE TABLE users (name TEXT)")

    def add() -> None:
        session.get().execute("INSERT INTO users VALUES ('alice')")

    def add_and_fail() -> None:
        session.get().execute("INSERT INTO users VALUES ('bob')")
        raise OSError("no route")

    assert [type(scene.run([with_session], one)) for one in (create, add, add_and_fail)] == [Done, Done, Dead]
    with closing(sqlite3.connect(path)) as opened:
        assert opened.execute("SELECT name FROM users").fetchall() == [("alice",)]


def test_asynchronous_middleware_is_left_if_its_thread_is_interrupted_as_it_has_entered(loop: Loop) -> None:
    scene = Scene(loop, "thread")
    run = loop.run

    def interrupted(coroutine: Coroutine[Any, Any, Any], timeout: float | None) -> Any:
        run(coroutine, timeout)
        raise TimeLimitExceeded

    loop.run = interrupted  # type: ignore[method-assign]
    outcome = scene.run([scene.asynchronous("a")], lambda: scene.events.append("runs"))
    assert isinstance(outcome, Dead)
    assert outcome.reason == "timeout"
    wait_until(lambda: scene.events == ["a enters example", "a sees CancelledError"])


def test_middleware_that_does_not_return_a_context_manager_is_the_failure_of_the_task(scene: Scene) -> None:
    def wrong(_run: Run) -> Any:
        return 5

    outcome = scene.run([wrong], lambda: None)
    assert isinstance(outcome, Dead)
    assert outcome.failure.error_type == "TypeError"
    assert "wrong must return a context manager, and has returned 5" in outcome.failure.text


def test_a_plain_call_of_a_task_runs_no_middleware() -> None:
    app = App(middleware=[lambda _: pytest.fail("called")])

    @app.task(name="a.b")
    def double(number: int) -> int:
        return 2 * number

    assert double(21) == 42


@pytest.mark.parametrize("middleware", [nullcontext, [5]])
def test_an_app_takes_a_list_of_callables(middleware: Any) -> None:
    with pytest.raises(ConfigError, match="give a list of callables"):
        App(middleware=middleware)
