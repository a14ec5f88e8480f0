"""An isolated process as its worker holds it: it answers, or its end is found out, whatever a task does to it."""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from amqpworker.model.message import Delivery, Properties
from amqpworker.model.outcome import Dead, Deferred, Done, Outcome
from amqpworker.worker.context import Run
from amqpworker.worker.isolation.isolated_process import Answer, Arrived, Crash, IsolatedProcess, Late
from amqpworker.worker.isolation.protocol import outcome_from, request_to
from amqpworker.worker.options import WorkerOptions
from tests.pools import alive
from tests.support import wait_until

APP = """
import ctypes, os, signal, sys, time
from contextlib import asynccontextmanager
from amqpworker import App, Reject, current

entered = []

@asynccontextmanager
async def lifespan():
    entered.append("entered")
    yield

app = App("amqp://guest@localhost:1/", results="sqlite:///none.db", lifespan=lifespan)

@app.task(name="echo")
def echo(text: str, times: int = 1) -> str:
    return text * times

@app.task(name="told")
async def told() -> list:
    run = current()
    return [run.id, run.attempt, run.queue, run.headers, entered, os.getppid(), run.schedule, str(run.nominal)]

@app.task(name="fails")
def fails() -> None:
    raise ValueError("no")

@app.task(name="sleeps")
def sleeps() -> None:
    time.sleep(600)

@app.task(name="hangs")
def hangs() -> None:
    ctypes.PyDLL(None).sleep(600)

@app.task(name="forks")
def forks() -> None:
    child = os.fork()
    if child == 0:
        time.sleep(600)
    print(child, file=open("child", "w"), flush=True)
    os._exit(5)

@app.task(name="comes_back_twice")
def comes_back_twice() -> str:
    if os.fork() == 0:
        return "from the child"
    os.wait()
    return "from the parent"

@app.task(name="spins", time_limit=0.5, retry=None)
def spins() -> None:
    while True:
        pass

@app.task(name="scribbles")
def scribbles() -> None:
    for number in range(3, 200):
        try:
            os.write(number, b"hello there, this is not a frame" * 3)
        except OSError:
            pass

@app.task(name="closes")
def closes() -> None:
    os.closerange(3, 200)

@app.task(name="leaves_its_group")
def leaves_its_group() -> None:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        os.write(write, b"x")
        time.sleep(600)
    os.read(read, 1)
    os.setpgid(0, child)
    print(child, file=open("child", "w"), flush=True)
    time.sleep(600)

@app.task(name="exits")
def exits() -> None:
    sys.exit(3)

@app.task(name="signals")
def signals() -> str:
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)
    return "here"

@app.task(name="starts")
def starts() -> str:
    import subprocess
    program = "import signal; print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.strip()
"""

AROUND = """
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from amqpworker import App

entered = ContextVar("entered", default=())
left = []

@contextmanager
def outer(run):
    entered.set((*entered.get(), f"outer of {run.task}"))
    yield
    left.append("outer")

@asynccontextmanager
async def inner(run):
    entered.set((*entered.get(), "inner"))
    yield
    left.append("inner")

app = App("amqp://guest@localhost:1/", results="sqlite:///none.db", middleware=[outer, inner])

@app.task(name="inside")
def inside() -> list:
    return [*entered.get(), *left]

@app.task(name="inside-async")
async def inside_async() -> list:
    return [*entered.get(), *left]
"""


@pytest.fixture
def stall_timeout() -> float:
    return 60.0


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stall_timeout: float) -> Iterator[IsolatedProcess]:
    (tmp_path / "alone.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    made = IsolatedProcess(WorkerOptions(app="alone:app", stall_timeout=stall_timeout))
    yield made
    made.close()
    assert not alive(made.pid)


def asked(process: IsolatedProcess, task: str, body: bytes = b"{}", timeout: float = math.inf) -> Answer:
    headers = {"shop": "a", "aw-first-sent": 1, "aw-schedule": "nightly", "aw-nominal": "2026-11-30T02:30:00.000Z"}
    delivery = Delivery(1, False, "", "key", Properties(type=task, message_id="m", headers=headers), body)
    delivery.queue = "work"
    registered: Any = SimpleNamespace(name=task)
    if not process.runs:
        assert process.wait_ready(60)
    return process.run(request_to(Run(registered, delivery, "the id", 2, time.time(), time.time())), timeout)


def outcome(ending: Answer) -> Outcome:
    assert isinstance(ending, Arrived), ending
    return outcome_from(ending.data)


def crash(ending: Answer) -> Crash:
    assert isinstance(ending, Crash), ending
    return ending


def test_it_runs_one_task_after_the_other_and_knows_what_they_are_about(process: IsolatedProcess) -> None:
    assert outcome(asked(process, "echo", b'{"text": "a"}')) == Done(b'"a"')
    tick = '"nightly","2026-11-30 02:30:00+00:00"'
    expected = f'["the id",2,"work",{{"shop":"a"}},["entered"],{os.getpid()},{tick}]'.encode()
    assert outcome(asked(process, "told")) == Done(expected)
    failed = outcome(asked(process, "fails"))
    assert not isinstance(failed, Done)
    assert failed.failure.error_type == "ValueError"  # type: ignore[union-attr]
    malformed = outcome(asked(process, "echo", b"[]"))
    assert isinstance(malformed, Dead)
    assert malformed.reason == "malformed"
    unknown = outcome(asked(process, "nothing"))
    assert isinstance(unknown, Deferred), "newer code has sent it, perhaps"
    assert unknown.delay == 4
    more = outcome(asked(process, "echo", b'{"text": "a", "lang": "en"}'))
    assert isinstance(more, Deferred)
    assert "'lang'" in more.reason
    assert process.runs == 6
    assert process.alive()


def test_middleware_is_around_each_run_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "around.py").write_text(AROUND)
    monkeypatch.chdir(tmp_path)
    process = IsolatedProcess(WorkerOptions(app="around:app"))
    try:
        found = [outcome(asked(process, task, b"{}")) for task in ("inside", "inside-async", "inside")]
    finally:
        process.close()
    assert [json.loads(one.value or b"") for one in found if isinstance(one, Done)] == [
        ["outer of inside", "inner"],
        ["outer of inside-async", "inner", "inner", "outer"],
        ["outer of inside", "inner", *["inner", "outer"] * 2],
    ]


def test_large_messages_and_results_pass(process: IsolatedProcess) -> None:
    text = b"x" * 3_000_000
    assert outcome(asked(process, "echo", b'{"text": "' + text + b'", "times": 3}')) == Done(b'"' + text * 3 + b'"')


def test_a_task_that_is_late_is_reported_with_its_stack(process: IsolatedProcess) -> None:
    ending = asked(process, "sleeps", timeout=0.5)
    assert isinstance(ending, Late)
    assert "in sleeps" in ending.stack


@pytest.mark.parametrize("stall_timeout", [1.5])
def test_what_holds_the_lock_of_the_interpreter_for_the_stall_timeout_is_ended_with_its_stack(
    process: IsolatedProcess,
) -> None:
    found = crash(asked(process, "hangs"))
    assert (found.code, found.reason) == (-signal.SIGKILL, "killed: it had made no progress for 3 s")
    assert "in hangs" in found.stack
    assert not process.alive()


@pytest.mark.parametrize("stall_timeout", [1])
def test_a_task_that_only_takes_long_is_left_alone(process: IsolatedProcess) -> None:
    assert isinstance(asked(process, "sleeps", timeout=4), Late)


def test_its_end_is_noticed_though_a_child_of_its_task_holds_its_socket(process: IsolatedProcess) -> None:
    found = crash(asked(process, "forks"))
    assert found.code == 5
    assert found.memory > 1 << 20
    child = int(Path("child").read_text())
    process.close()
    wait_until(lambda: not alive(child), what="the end of what the task has started")


def test_a_task_that_has_left_its_process_group_is_ended_all_the_same(process: IsolatedProcess) -> None:
    assert isinstance(asked(process, "leaves_its_group", timeout=1), Late)
    child = int(Path("child").read_text())
    killer = threading.Timer(10, os.kill, (process.pid, signal.SIGKILL))
    killer.start()
    process.close()
    assert killer.is_alive(), "no other process has to end it"
    killer.cancel()
    assert not alive(child)


def test_a_child_that_comes_back_from_a_task_answers_nothing(process: IsolatedProcess) -> None:
    assert outcome(asked(process, "comes_back_twice")) == Done(b'"from the parent"')
    assert outcome(asked(process, "echo", b'{"text": "a"}')) == Done(b'"a"')


def test_a_soft_limit_strikes_there_too(process: IsolatedProcess) -> None:
    late = outcome(asked(process, "spins"))
    assert isinstance(late, Dead)
    assert (late.reason, late.failure.error_type) == ("timeout", "amqpworker.errors.TimeLimitExceeded")


@pytest.mark.parametrize("task", ["scribbles", "closes"])
def test_a_task_that_spoils_the_connection_has_taken_its_process_down(process: IsolatedProcess, task: str) -> None:
    crash(asked(process, task))
    assert not process.alive()


def test_sys_exit_is_a_failure_like_any_other_and_signals_change_nothing(process: IsolatedProcess) -> None:
    failed = outcome(asked(process, "exits"))
    assert failed.failure.error_type == "SystemExit"  # type: ignore[union-attr]
    assert outcome(asked(process, "signals")) == Done(b'"here"')
    assert outcome(asked(process, "starts")) == Done(b'"True"')


@pytest.mark.parametrize("when", ["idle", "running"])
def test_a_kill_is_noticed(process: IsolatedProcess, when: str) -> None:
    assert process.wait_ready(60)
    if when == "idle":
        process.runs = 1
        os.kill(process.pid, signal.SIGKILL)
        wait_until(lambda: not process.alive())
    else:
        process.runs = 1
        killer = threading.Timer(0.3, lambda: os.kill(process.pid, signal.SIGKILL))
        killer.start()
        assert crash(asked(process, "sleeps")).code == -signal.SIGKILL


def test_a_wait_for_any_child_in_user_code_is_survived(process: IsolatedProcess) -> None:
    assert process.wait_ready(60)
    process.runs = 1
    os.kill(process.pid, signal.SIGKILL)
    assert os.waitpid(process.pid, 0)[0] == process.pid
    found = crash(asked(process, "echo", b'{"text": "a"}'))
    assert (found.code, found.how) == (None, "an unknown exit code")


@pytest.mark.parametrize("text", ["raise RuntimeError('broken')", "import os; os._exit(0)", "app = 3", "def"])
def test_an_app_that_cannot_be_imported_does_not_get_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    (tmp_path / "alone.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    made = IsolatedProcess(WorkerOptions(app="alone:app"))
    assert not made.wait_ready(60)
    made.close()


def test_what_an_app_lets_its_own_sockets_wait_for_is_not_for_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "impatient.py").write_text(APP + "\nimport socket; socket.setdefaulttimeout(0)")
    monkeypatch.chdir(tmp_path)
    made = IsolatedProcess(WorkerOptions(app="impatient:app"))
    # More than is there at once, so that it has to wait.
    text = b"x" * 3_000_000
    try:
        assert outcome(asked(made, "echo", b'{"text": "' + text + b'"}')) == Done(b'"' + text + b'"')
    finally:
        made.close()


def test_nothing_is_left_open_if_there_is_no_room() -> None:
    def descriptors() -> list[str]:
        return sorted(os.listdir("/proc/self/fd"))

    before, kept = descriptors(), resource.getrlimit(resource.RLIMIT_NOFILE)
    refused = 0
    for limit in range(3, kept[0]):
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, kept[1]))
        try:
            IsolatedProcess(WorkerOptions(app="alone:app")).close()
            break
        except OSError:
            refused += 1
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, kept)
        assert descriptors() == before
    assert refused > 3


def test_nothing_is_left_open(process: IsolatedProcess) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = descriptors()
    for end in ("close", "kill"):
        another = IsolatedProcess(WorkerOptions(app="alone:app"))
        ended: Callable[[], None] = getattr(another, end)
        ended()
        another.close()
    assert descriptors() == before
