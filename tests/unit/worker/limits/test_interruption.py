"""Where an exception for a time limit is held back: it must not leave a lock held for ever."""

from __future__ import annotations

import gc
import importlib
import logging
import math
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from types import FrameType, GeneratorType
from typing import Any

import pytest

import amqpworker
from amqpworker import TimeLimitExceeded
from amqpworker.worker.limits.interruption import (
    AT_FORK,
    Safety,
    acquiring,
    outwards,
    safety_at,
    safety_of,
    wait_and_preempt,
)
from amqpworker.worker.limits.limits import Limits
from tests.support import wait_until


def over_the_limit(function: Callable[[], Any], times: int, shortest: float = 0.002) -> int:
    """Run something again and again that does not end by itself for long, for about `shortest` seconds; return how often it was ended."""
    limits = Limits(lambda _: None)
    ended = 0
    for number in range(times):
        try:
            limits.call(None, function, shortest + number % 7 / 3000, math.inf)
        except TimeLimitExceeded:
            ended += 1
    return ended


def for_long() -> Iterator[None]:
    """Yield for half a minute: also a task that is never interrupted must end, since the tests wait for its thread at their end."""
    ends = time.monotonic() + 30
    while time.monotonic() < ends:
        yield


def works() -> None:
    """Do something that needs no lock, for a moment."""
    for _ in range(2000):
        pass


def is_free(lock: Any) -> bool:
    """Return whether a lock can be acquired; by another thread, since some locks are reentrant."""
    found: list[bool] = []

    def look() -> None:
        found.append(lock.acquire(timeout=5))
        if found[0]:
            lock.release()

    looking = threading.Thread(target=look)
    looking.start()
    looking.join()
    return found[0]


def test_the_switch_interval_is_restored_after_several_watchers_preempt_at_once() -> None:
    before = sys.getswitchinterval()
    watchers = [threading.Thread(target=wait_and_preempt, args=(seconds,)) for seconds in (0.1, 0.2)]
    for watcher in watchers:
        watcher.start()
    for watcher in watchers:
        watcher.join()
    assert sys.getswitchinterval() == before


FORKS_WHILE_PREEMPTING = """
import os, sys, threading, time
from amqpworker.worker.limits.interruption import wait_and_preempt

before = sys.getswitchinterval()
watcher = threading.Thread(target=wait_and_preempt, args=(0.5,))
watcher.start()
while watcher.is_alive() and sys.getswitchinterval() == before:
    time.sleep(0.01)
child = os.fork()
if child == 0:
    os._exit(int(sys.getswitchinterval() != before))
watcher.join()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), sys.getswitchinterval() == before)
"""


def test_a_child_that_is_forked_during_a_preemption_has_the_switch_interval_from_before_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKS_WHILE_PREEMPTING], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "0 True\n"


@pytest.mark.parametrize(
    "make", [threading.Lock, threading.Condition, threading.Semaphore], ids=["lock", "condition", "semaphore"]
)
def test_a_lock_that_a_task_waits_for_at_its_limit_is_acquired_and_released_before_the_task_ends(
    make: Callable[[], Any],
) -> None:
    lock = make()
    lock.acquire()
    ended: list[str] = []

    def task() -> None:
        lock.acquire()
        try:
            for _ in for_long():
                works()
        finally:
            lock.release()

    def run() -> None:
        try:
            Limits(lambda _: None).call(None, task, 0.05, math.inf)
        except TimeLimitExceeded:
            ended.append("in time")

    running = threading.Thread(target=run)
    running.start()
    later = time.monotonic() + 0.3
    wait_until(lambda: time.monotonic() > later)
    lock.release()
    running.join()
    assert ended == ["in time"]
    assert is_free(lock)


def test_logging_is_never_left_locked_by_a_task_that_logs_much() -> None:
    logger, handler = logging.Logger("busy"), logging.Handler()
    handler.emit = lambda _: works()  # type: ignore[method-assign]
    logger.addHandler(handler)
    done = threading.Event()

    def task() -> None:
        for _ in for_long():
            logger.info("line")
            works()

    def other() -> None:
        while not done.is_set():
            logger.info("another line")
            time.sleep(0.0002)

    thread = threading.Thread(target=other, daemon=True)
    thread.start()
    try:
        assert over_the_limit(task, 40) > 20
    finally:
        done.set()
    assert handler.lock is not None
    assert is_free(handler.lock)
    thread.join()


def test_importlib_is_never_left_locked_by_a_task_that_imports_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "often_imported.py").write_text("for _ in range(500):\n    pass\n")

    def task() -> None:
        for _ in for_long():
            sys.modules.pop("often_imported", None)
            importlib.import_module("often_imported")
            works()

    done = threading.Event()
    others = [threading.Thread(target=imports_often, args=(done,), daemon=True) for _ in range(2)]
    for other in others:
        other.start()
    try:
        assert over_the_limit(task, 15) > 7
    finally:
        done.set()
    for other in others:
        other.join(10)
    assert not any(other.is_alive() for other in others)


def imports_often(done: threading.Event) -> None:
    while not done.is_set():
        with suppress(ImportError, KeyError):
            importlib.import_module("often_imported")
        time.sleep(0.0001)


class Places:
    """Code that waits at a place, which the test inspects meanwhile."""

    def __init__(self, folder: Path) -> None:
        self.lock = threading.Lock()
        self.lock.acquire()
        self.queue: queue.Queue[int] = queue.Queue()
        self.event = threading.Event()
        self.folder = folder

    def acquires(self) -> None:
        self.lock.acquire()

    def acquires_by_another_name(self) -> None:
        acquire = self.lock.acquire
        acquire(True, timeout=max(5, *(3, 4) if self.folder else (1, 2)))

    def acquires_with_arguments(self) -> None:
        arguments = (True,)
        self.lock.acquire(*arguments)

    def calls_after_acquiring(self) -> None:
        own = threading.Lock()
        own.acquire()
        self.event.wait(5 if own.locked() else 6)

    def gets_from_a_queue(self) -> None:
        self.queue.get()

    def joins(self) -> None:
        waiting = threading.Thread(target=self.event.wait)
        waiting.start()
        waiting.join()

    def sleeps(self) -> None:
        time.sleep(0.5)

    def is_in_the_code_of_a_lock(self) -> None:
        outer = self

        class Slow:
            def __enter__(self) -> None:
                outer.sleeps()

            def __exit__(self, *_: object) -> None: ...

        with Slow():
            pass

    def logs(self) -> None:
        handler = logging.Handler()
        handler.emit = lambda _: self.sleeps()  # type: ignore[method-assign]
        logger = logging.Logger("slow")
        logger.addHandler(handler)
        logger.info("line")

    def finalizes(self) -> None:
        places = self

        class Slow:
            def __del__(self) -> None:
                places.sleeps()

        Slow()

    def collects_garbage(self) -> None:
        def slow(phase: str, _: object) -> None:
            if phase == "start" and threading.get_ident() == ident:
                self.sleeps()

        ident = threading.get_ident()
        gc.callbacks.append(slow)
        try:
            gc.collect()
        finally:
            gc.callbacks.remove(slow)

    def imports(self) -> None:
        (self.folder / "slow_to_import.py").write_text("import time\ntime.sleep(0.5)\n")
        importlib.import_module("slow_to_import")

    def release(self) -> None:
        self.lock.release()
        self.event.set()
        self.queue.put(1)


@pytest.mark.parametrize(
    ("place", "safety"),
    [
        (Places.acquires, Safety.UNSAFE),
        (Places.acquires_by_another_name, Safety.UNSAFE),
        (Places.acquires_with_arguments, Safety.UNSAFE),
        (Places.logs, Safety.UNSAFE),
        (Places.is_in_the_code_of_a_lock, Safety.DISRUPTIVE),
        (Places.imports, Safety.DISRUPTIVE),
        (Places.finalizes, Safety.DISRUPTIVE),
        (Places.collects_garbage, Safety.DISRUPTIVE),
        (Places.calls_after_acquiring, Safety.SAFE),
        (Places.gets_from_a_queue, Safety.SAFE),
        (Places.joins, Safety.SAFE),
        (Places.sleeps, Safety.SAFE),
    ],
    ids=lambda one: getattr(one, "__name__", one),
)
def test_an_exception_is_held_back_only_where_it_would_do_harm(
    place: Callable[[Places], None], safety: Safety, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    places = Places(tmp_path)
    thread = threading.Thread(target=place, args=(places,))
    with ExitStack() as stack:
        stack.callback(thread.join)
        stack.callback(places.release)
        thread.start()
        assert thread.ident is not None
        ident: int = thread.ident
        wait_until(lambda: safety_at(ident) is safety, what=f"{place.__name__} is at a place of {safety}")
        time.sleep(0)
        assert safety_at(ident, {found.f_code for found in frames(ident)}) is Safety.UNSAFE


def frames(thread: int) -> list[FrameType]:
    found, frame = [], sys._current_frames().get(thread)
    while frame is not None:
        found.append(frame)
        frame = frame.f_back
    return found


def test_a_frame_of_importlib_holds_the_exception_back() -> None:
    seen: list[Safety] = []

    class Finder:
        def find_spec(self, *_: object) -> None:
            seen.append(safety_of(sys._getframe()))

    finder: Any = Finder()
    sys.meta_path.insert(0, finder)
    try:
        with suppress(ImportError):
            importlib.import_module("there_is_no_such_module")
    finally:
        sys.meta_path.remove(finder)
    assert seen == [Safety.UNSAFE]


def test_code_of_amqpworker_holds_the_exception_back_briefly() -> None:
    ours = outwards(sys._getframe())
    assert isinstance(ours, GeneratorType)
    assert safety_of(ours.gi_frame) is Safety.DISRUPTIVE
    ours.close()


def test_a_function_that_acquires_nothing_has_no_acquiring_instructions() -> None:
    assert acquiring(frames.__code__) == frozenset()


FORKS = """
import math, os, sys, time
import amqpworker
from amqpworker import TimeLimitExceeded
from amqpworker.worker.task_processes import TaskProcesses
from amqpworker.worker.limits.limits import Limits, Pace

def forks():
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)

TaskProcesses()
limits = Limits(lambda _: None, Pace(repeat_after=5.0))
ended = 0
for number in range(60):
    try:
        limits.call(None, forks, 0.01 + number / 10000, math.inf)
    except TimeLimitExceeded:
        ended += 1
print(ended)
"""


def interrupted_runs(program: str) -> int:
    """Return what a program printed: how many runs ended with the exception; none may have been ignored."""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert "Exception ignored" not in ended.stderr, ended.stderr
    return int(ended.stdout)


def test_a_task_that_forks_is_interrupted_outside_of_fork_handlers_where_python_would_swallow_the_exception() -> None:
    assert interrupted_runs(FORKS) == 60


COLLECTS = """
import gc, math, time
from amqpworker import TimeLimitExceeded
from amqpworker.worker.limits.limits import Limits, Pace

def slow(phase, info):
    end = time.monotonic() + 0.002
    while time.monotonic() < end:
        pass

class Slow:
    def __del__(self):
        slow("end", {})

def collects():
    end = time.monotonic() + 5
    while time.monotonic() < end:
        gc.collect(0)
        Slow()
        sum(range(100_000))

gc.callbacks.append(slow)
limits = Limits(lambda _: None, Pace(repeat_after=60))
ended = 0
for number in range(40):
    try:
        limits.call(None, collects, 0.01 + number / 10000, math.inf)
    except TimeLimitExceeded:
        ended += 1
print(ended)
"""


def test_a_task_is_interrupted_outside_of_finalizers_and_of_gc_callbacks_where_python_swallows_the_exception() -> None:
    assert interrupted_runs(COLLECTS) == 40


def test_every_fork_handler_of_amqpworker_that_runs_in_the_parent_is_listed() -> None:
    found = {
        name
        for file in Path(amqpworker.__file__).parent.rglob("*.py")
        for call in re.findall(r"register_at_fork\((.*)\)", file.read_text())
        for name in re.findall(r"(?:before|after_in_parent)=(?:\w+\.)*(\w+)", call)
    }
    assert found == AT_FORK
