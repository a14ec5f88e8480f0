"""The flight recorder: what is written is read, also half of it, and garbage does no harm."""

from __future__ import annotations

import json
import mmap
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpworker.cli.status_command import status_tables
from amqpworker.ipc.recorder import (
    CONSUMER,
    HEADER,
    IDLE_BYTES,
    MAIN,
    SLOT_SIZE,
    THREADS,
    Counts,
    Gauges,
    Recorder,
    Recording,
    Running,
    key_of,
    read_recording,
    record_idle_elsewhere,
    size_of,
)
from amqpworker.model.message import Delivery, Properties
from amqpworker.policies.time_limit import UNLIMITED, TimeLimit
from amqpworker.supervisor.fleet import Fleet
from amqpworker.supervisor.health import respond_to
from amqpworker.supervisor.monitor import recycling_reason
from amqpworker.supervisor.pools import Recycling
from amqpworker.supervisor.status import History, Observation, status_line, status_of
from amqpworker.worker.context import Run


def delivery(message_id: str | None, body: bytes = b"{}", queue: str = "work") -> Delivery:
    return Delivery(1, False, "", queue, Properties(message_id=message_id, type="shop.task"), body)


def run_of(name: str, limit: TimeLimit = UNLIMITED, attempt: int = 1, started: float = 1000.0) -> Run:
    registered: Any = SimpleNamespace(name=name, time_limit=limit)
    return Run(registered, delivery("x"), "x", attempt, started, started)


def recorded(recorder: Recorder) -> Recording:
    found = read_recording(recorder.memory)
    assert found is not None
    return found


@given(st.text(max_size=300), st.text(min_size=1, max_size=300), st.integers(1, 10**9))
def test_what_a_runner_does_is_read_as_it_was_written_whatever_its_names_are(
    message_id: str, task: str, attempt: int
) -> None:
    recorder = Recorder(2)
    name = task.encode("utf-8", "replace").decode()
    recorder.slots[1].mark_running(key_of(delivery(message_id or "x")), run_of(name, TimeLimit(5, 60), attempt))
    (running,) = recorded(recorder).running
    assert (running.slot, running.attempt, running.started, running.limit) == (1, attempt, 1000.0, 1005.0)
    assert name.encode()[:60].decode("utf-8", "ignore") in running.task
    recorder.slots[1].mark_free()
    assert recorded(recorder).running == ()


def test_a_slot_that_is_half_written_was_not_begun() -> None:
    recorder = Recorder(1)
    recorder.slots[0].mark_running(b"m-1", run_of("shop.task"))
    recorder.memory[HEADER.size] = 0
    assert recorded(recorder).running == ()
    recorder.memory[HEADER.size] = 1
    assert recorded(recorder).running == (Running(0, "m-1", "shop.task", 1, 1000.0, 0.0),)


def test_idle_queues_are_read_on_both_sides_and_touch_nothing_else() -> None:
    memory = mmap.mmap(-1, size_of(2))
    recorder = Recorder(2, memory)
    recorder.slots[1].mark_running(b"m-1", run_of("shop.task"))
    most = (1 << 8 * IDLE_BYTES) - 1
    recorder.record_idle(most)
    assert recorder.idle_elsewhere() == 0
    record_idle_elsewhere(memory, 2, 0b101)
    found = read_recording(memory)
    assert found is not None
    assert (found.idle, recorder.idle_elsewhere()) == (most, 0b101)
    assert [one.key for one in found.running] == ["m-1"]


def test_shared_memory_shows_the_same_to_both_sides() -> None:
    memory = mmap.mmap(-1, size_of(3))
    recorder = Recorder(3, memory)
    recorder.beat(MAIN)
    recorder.record(Counts(1, 2, 3, 4), consuming=True, gauges=Gauges(2, 14, 3))
    found = read_recording(memory)
    assert found is not None
    assert found.consuming
    assert found.heartbeats[MAIN] > 0
    assert found.heartbeats[CONSUMER] == 0
    assert (found.counts, found.counts.settled) == (Counts(1, 2, 3, 4), 6)
    assert found.gauges == Gauges(2, 14, 3)


def test_a_message_without_an_id_is_known_by_its_contents() -> None:
    assert key_of(delivery("m-1")) == b"m-1"
    nameless = [
        key_of(one) for one in (delivery(None), delivery(None, b"[]"), delivery(None, queue="other"), delivery(None))
    ]
    assert nameless[0] == nameless[3]
    assert len(set(nameless)) == 3


@given(st.binary(max_size=600))
def test_what_is_not_a_recording_is_recognized(garbage: bytes) -> None:
    read_recording(bytearray(garbage))


@given(st.binary(max_size=400), st.integers(0, size_of(2) - 1))
def test_a_recording_that_was_written_over_is_read_or_recognized_and_never_fails(garbage: bytes, at: int) -> None:
    recorder = Recorder(2)
    recorder.slots[0].mark_running(b"m-1", run_of("shop.task"))
    torn = bytearray(recorder.memory)
    torn[at : at + len(garbage)] = garbage
    read_recording(torn)


RECORDED = bytearray(size_of(3))
for number, recorded_slot in enumerate(Recorder(3, RECORDED).slots):
    recorded_slot.mark_running(f"m-{number}".encode(), run_of("shop.task"))


@given(
    st.lists(st.tuples(st.integers(0, len(RECORDED) - 1), st.binary(min_size=1, max_size=16)), max_size=20),
    st.floats(0, 1e9),
)
def test_all_that_a_recording_contains_can_be_checked_and_reported(
    changes: list[tuple[int, bytes]], now: float
) -> None:
    memory = bytearray(RECORDED)
    for at, bytes_ in changes:
        memory[at : at + len(bytes_)] = bytes_
    del memory[len(RECORDED) :]
    recording = read_recording(memory)
    if recording is not None:
        recording.stalled_thread(now, 60.0)
        recycling_reason(Recycling(5, 60, 1), 1.0, recording.counts.settled, 1)
    fleet = Fleet({"main": 1}, lambda: 1.0, {"main": 60.0})
    fleet.tick(now)
    state = status_of(fleet, {1: Observation(4711, 0, recording)}, History(), now, now)
    status_line(state)
    code, content = respond_to("/status", state, now)
    assert code == 200
    status_tables(json.loads(json.dumps(content)))


@pytest.mark.parametrize("size", [0, 10, HEADER.size, HEADER.size + SLOT_SIZE])
def test_a_recording_that_is_cut_off_is_none(size: int) -> None:
    assert read_recording(bytearray(Recorder(2).memory[:size])) is None


def test_a_thread_that_does_not_move_is_named_and_one_that_never_began_is_not() -> None:
    heartbeats = [0.0] * len(THREADS)
    heartbeats[MAIN], heartbeats[CONSUMER] = 100.0, 30.0
    recording = Recording(tuple(heartbeats), Counts(), ())
    assert recording.stalled_thread(89.0, 60.0) == ""
    assert recording.stalled_thread(91.0, 60.0) == "its consumer thread has made no progress for 61 s"


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Recycling(), ""),
        (Recycling(tasks=101, seconds=61, memory=201 * 1024 * 1024), ""),
        (Recycling(tasks=100), "it has run 100 tasks"),
        (Recycling(seconds=60), "it has run for 60 s"),
        (Recycling(memory=200 * 1024 * 1024), "it holds 200 MiB of memory"),
    ],
)
def test_a_process_is_replaced_at_each_of_its_limits(limits: Recycling, reason: str) -> None:
    assert recycling_reason(limits, 60.0, 100, 200 * 1024 * 1024) == reason
