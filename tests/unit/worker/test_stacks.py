"""How a process writes the stacks of its own threads."""

from __future__ import annotations

import gc
import logging
import threading
import weakref

import pytest

from amqpworker.worker.stacks import StackWriter, stacks
from tests.support import wait_until


class Held:
    """What a task holds in a variable."""


def waiting(begun: threading.Event, go: threading.Event, seen: list[weakref.ref[Held]]) -> None:
    held = Held()
    seen.append(weakref.ref(held))
    begun.set()
    go.wait(30)


def test_the_stack_of_each_thread_is_shown_with_its_name_and_keeps_none_of_its_variables() -> None:
    begun, go = threading.Event(), threading.Event()
    seen: list[weakref.ref[Held]] = []
    thread = threading.Thread(target=waiting, args=(begun, go, seen), name="mine")
    thread.start()
    assert begun.wait(10)
    shown = dict(stacks())
    assert 'test_stacks.py", line' in shown["mine"]
    assert "in waiting\n    go.wait(30)" in shown["mine"]
    assert shown["mine"].index("in waiting") < shown["mine"].index("in wait\n"), "the innermost call last"
    assert threading.current_thread().name not in shown, "the thread that looks is left out"
    go.set()
    thread.join()
    gc.collect()
    assert seen[0]() is None


def test_stacks_are_written_at_the_next_request_after_a_thread_could_not_be_started(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_room(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    writer = StackWriter()
    with monkeypatch.context() as full, caplog.at_level(logging.INFO):
        full.setattr(threading.Thread, "start", no_room)
        writer.write()
    assert "stacks_not_written" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO):
        writer.write()
        wait_until(lambda: "thread_stack" in caplog.text)
        # Else its last lines are among those of the next test.
        wait_until(lambda: not any(one.name == "amqpworker-stacks" for one in threading.enumerate()))
