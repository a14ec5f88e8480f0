"""Time limits of tasks in threads: the exception is raised inside the task and nowhere else, once."""

from __future__ import annotations

import itertools
import logging
import math
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from amqpworker import AmqpWorkerError, App, ConfigError, TimeLimitExceeded
from amqpworker.lifecycle import ThreadLimitReached
from amqpworker.log.logger import flush
from amqpworker.log.writer import LineHandler
from amqpworker.policies.time_limit import UNLIMITED, TimeLimit, time_limit_of
from amqpworker.worker.limits.limits import Limits, Pace, RunAbandoned, RunDeadline
from tests.support import wait_until


@pytest.fixture
def over() -> list[RunDeadline]:
    return []


@pytest.fixture
def limits(over: list[RunDeadline]) -> Limits:
    return Limits(over.append)


def spin(until: Callable[[], bool] = lambda: False) -> str:
    """Run Python code until something is so, or half a minute is over: also a task that is never interrupted must end."""
    give_up = time.monotonic() + 30
    while not until() and time.monotonic() < give_up:
        pass
    return "spun"


def test_a_task_that_runs_python_code_is_interrupted_at_its_soft_limit(limits: Limits) -> None:
    with pytest.raises(TimeLimitExceeded, match="longer than its time_limit"):
        limits.call(None, spin, 0.05, math.inf)


def test_time_limits_are_enforced_again_once_a_thread_can_be_started(
    limits: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as crowded:
        crowded.setattr(threading.Thread, "start", refuse)
        with pytest.raises(ThreadLimitReached):
            limits.call(None, spin, 0.05, math.inf)
    give_up = time.monotonic() + 10
    with pytest.raises(TimeLimitExceeded):
        limits.call(None, lambda: spin(lambda: time.monotonic() > give_up), 0.05, math.inf)


def test_a_task_inside_a_call_into_c_is_interrupted_as_soon_as_that_returns(limits: Limits) -> None:
    with pytest.raises(TimeLimitExceeded):
        limits.call(None, lambda: time.sleep(0.2) or spin(), 0.05, math.inf)


def test_a_task_can_catch_time_limit_exceeded_and_clean_up(limits: Limits) -> None:
    def careful() -> str:
        try:
            return spin()
        except TimeLimitExceeded:
            return "cleaned up"

    assert limits.call(None, careful, 0.05, math.inf) == "cleaned up"


def test_a_task_within_its_limit_returns_or_raises_as_usual(limits: Limits) -> None:
    assert limits.call(None, lambda: 42, 60, 60) == 42
    with pytest.raises(ZeroDivisionError):
        limits.call(None, lambda: 1 // 0, 60, 60)


def test_a_task_that_ends_close_to_its_limit_is_interrupted_inside_or_not_at_all(limits: Limits) -> None:
    """Thousands of tasks that end at that very moment: the code after them is not interrupted."""
    escaped: list[BaseException] = []

    def run() -> None:
        for number in range(400):
            ends = time.monotonic() + 0.002
            limit = 0.0018 + number % 5 / 1e4
            with suppress(TimeLimitExceeded):
                limits.call(None, lambda ends=ends: spin(lambda: time.monotonic() > ends), limit, 9)  # type: ignore[misc]
            try:
                spin(iter([False] * 50 + [True]).__next__)
            except BaseException as error:
                escaped.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert escaped == []
    assert limits._runs == {}


FORKS_WHILE_RAISING = """
import math, os, threading, time
from amqpworker.worker.limits import limits as limits_module

is_raising, has_forked = threading.Event(), threading.Event()

def safety_at(*_):
    is_raising.set()
    has_forked.wait()
    return limits_module.Safety.UNSAFE

def forks():
    is_raising.wait()
    child = os.fork()
    if child:
        has_forked.set()
    return child

limits_module.safety_at = safety_at
child = limits_module.Limits().call(None, forks, 0.01, math.inf)
if child == 0:
    os._exit(7)
give_up = time.monotonic() + 10
while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < give_up:
    time.sleep(0.01)
if ended == (0, 0):
    os.kill(child, 9)
print(os.waitstatus_to_exitcode(ended[1]))
"""


def test_a_child_that_returns_from_a_task_does_not_wait_for_the_watcher_that_only_its_parent_has() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKS_WHILE_RAISING], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "7\n"


@pytest.mark.parametrize("kind", [OSError, TimeoutError, ConnectionError])
def test_handlers_of_network_errors_do_not_catch_time_limit_exceeded(limits: Limits, kind: type[Exception]) -> None:
    ends = time.monotonic() + 10

    def reconnects() -> None:
        while time.monotonic() < ends:
            with suppress(kind):
                spin(lambda: time.monotonic() > ends)

    with pytest.raises(TimeLimitExceeded):
        limits.call(None, reconnects, 0.05, math.inf)
    assert TimeLimitExceeded.__mro__[1:3] == (AmqpWorkerError, Exception)


class Sleepy:
    """An object whose end takes a while: what is raised there is lost."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __del__(self) -> None:
        ends = time.monotonic() + self.seconds
        spin(lambda: time.monotonic() > ends)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_time_limit_exceeded_is_raised_again_until_the_run_has_ended(over: list[RunDeadline]) -> None:
    limits = Limits(over.append, Pace(repeat_after=0.2))
    swallowed: list[float] = []

    def stubborn() -> None:
        ends = time.monotonic() + 10
        Sleepy(0.15)
        while len(swallowed) < 3 and time.monotonic() < ends:
            try:
                spin(lambda: time.monotonic() > ends)
            except Exception:
                swallowed.append(time.monotonic())
        spin(lambda: time.monotonic() > ends)

    with pytest.raises(TimeLimitExceeded):
        limits.call(None, stubborn, 0.05, math.inf)
    assert len(swallowed) == 3
    assert all(later - earlier > 0.1 for earlier, later in itertools.pairwise(swallowed)), "there is time to clean up"
    assert limits.call(None, lambda: "next", 60, math.inf) == "next", "nothing is left of the run before"


def test_a_task_that_does_nothing_but_log_is_interrupted_and_leaves_the_log_handler_unlocked(
    over: list[RunDeadline],
) -> None:
    read_end, write_end = os.pipe()

    def read() -> None:
        while os.read(read_end, 65536):
            pass

    reader = threading.Thread(target=read)
    reader.start()
    logger = logging.Logger("busy")
    with os.fdopen(write_end, "w") as stream:
        sink = LineHandler(stream)
        logger.addHandler(sink)
        logger.info("%s", "x" * 10_000)
        ends = time.monotonic() + 10

        def logs() -> None:
            while time.monotonic() < ends:
                logger.info("%s", "x" * 10_000)

        for _ in range(10):
            with pytest.raises(TimeLimitExceeded):
                Limits(over.append, Pace(disrupt_after=0.05)).call(None, logs, 0.01, math.inf)
            assert sink.lock is not None
            assert sink.lock.acquire(timeout=5)
            sink.lock.release()
    reader.join()
    os.close(read_end)


def test_the_log_names_once_a_run_that_does_not_end_at_its_limit(
    over: list[RunDeadline], caplog: pytest.LogCaptureFixture
) -> None:
    limits = Limits(over.append, Pace(report_after=0.05))
    run = SimpleNamespace(task="shop.waits", id="m-1", attempt=1, queue="work")
    ours, theirs = socket.socketpair()

    def receive() -> None:
        ours.recv(1)

    with ours, theirs:
        blocked = threading.Thread(target=lambda: suppressed(lambda: limits.call(run, receive, 0.05, math.inf)))
        blocked.start()
        wait_until(lambda: "task_over_limit" in caplog.text)
        assert [watch.run for watch in limits.beyond(0.05)] == [run]
        assert limits.beyond(60) == []
        theirs.send(b"x")
        blocked.join()
    flush()
    (line,) = [record.msg for record in caplog.records if "task_over_limit" in str(record.msg)]
    assert (line["task"], line["id"]) == ("shop.waits", "m-1")
    assert "in receive" in line["at"]
    assert limits.beyond(0) == []


def suppressed(function: Callable[[], Any]) -> None:
    with suppress(TimeLimitExceeded):
        function()


def test_a_hard_limit_is_reported_once_and_the_run_continues_to_its_end_if_none_claims_it(
    limits: Limits, over: list[RunDeadline]
) -> None:
    go = threading.Event()
    ended: list[Any] = []
    running = threading.Thread(target=lambda: ended.append(limits.call("run", go.wait, math.inf, 0.05)))
    running.start()
    wait_until(lambda: over)
    go.set()
    running.join()
    assert [watch.run for watch in over] == ["run"]
    assert ended == [True]
    assert limits.claim(over[0]) is False


def test_a_run_that_was_claimed_is_abandoned(limits: Limits, over: list[RunDeadline]) -> None:
    go = threading.Event()
    ended: list[str] = []

    def run() -> None:
        try:
            limits.call("run", go.wait, math.inf, 0.05)
        except RunAbandoned:
            ended.append("overtaken")

    running = threading.Thread(target=run)
    running.start()
    wait_until(lambda: over)
    assert limits.claim(over[0])
    go.set()
    running.join()
    assert ended == ["overtaken"]


def test_the_nearest_of_many_limits_is_enforced_even_if_it_is_added_later(limits: Limits) -> None:
    release = threading.Event()
    waiting = threading.Thread(target=lambda: limits.call(None, release.wait, 3600, 3600))
    waiting.start()
    with pytest.raises(TimeLimitExceeded):
        limits.call(None, spin, 0.05, 3600)
    release.set()
    waiting.join()


@pytest.mark.parametrize(
    ("soft", "hard", "told"),
    [
        (0, None, "more than zero"),
        (-1, None, "time_limit"),
        (None, "5", "hard_limit"),
        (True, None, "time_limit"),
        (float("nan"), None, "time_limit"),
        (10, 5, "must not be shorter"),
    ],
)
def test_an_invalid_limit_is_refused_when_the_task_is_defined(soft: Any, hard: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        App().task(name="x", time_limit=soft, hard_limit=hard)


def test_limits_are_seconds_or_timedeltas() -> None:
    assert time_limit_of(None, None) is UNLIMITED
    assert time_limit_of(1.5, timedelta(minutes=1)) == TimeLimit(1.5, 60)
    assert time_limit_of(5, 5) == TimeLimit(5, 5)
    assert (time_limit_of(5, None).last, time_limit_of(5, 9).last) == (5, 9)
    assert [time_limit_of(*given).first for given in ((5, None), (5, 9), (None, 9))] == [5, 5, 9]
    assert [time_limit_of(*given).end for given in ((5, None), (5, 9), (None, 9))] == [65, 9, 9]
