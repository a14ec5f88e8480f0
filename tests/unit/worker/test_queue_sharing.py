"""Messages are left to idle processes: when a queue is left, and what the processes of a supervisor know of each other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from hypothesis import given
from hypothesis import strategies as st

from amqpworker.broker.address import addresses
from amqpworker.cli.pool_file import pool_spec
from amqpworker.ipc.recorder import MAIN, Recorder, read_recording, record_idle_elsewhere
from amqpworker.supervisor.fleet import Fleet
from amqpworker.supervisor.monitor import Monitor, idle_elsewhere
from amqpworker.worker.options import WorkerOptions
from amqpworker.worker.queue_sharing import Sharing, bits_of


class Scene:
    """A process with one queue; `idle`: one of its threads is idle; `others`: a thread of another process is."""

    def __init__(self) -> None:
        self.idle = True
        self.recorder = Recorder(1)
        self.left: list[set[str]] = []
        self.consumed: list[str] = []
        self.sharing = Sharing(
            self.recorder,
            {"work": 0b100},
            lambda _: self.idle,
            lambda: self.consumed,
            lambda left: self.left.append({*left}),
        )

    def look(self, now: float, others: bool, consumed: bool = True) -> int:
        """Look, and return what the process is idle for."""
        record_idle_elsewhere(self.recorder.memory, 1, 0b111 if others else 0b011)
        self.consumed = ["work"] if consumed else []
        self.sharing.beat(now)
        found = read_recording(self.recorder.memory)
        assert found is not None
        return found.idle


def test_a_queue_is_left_after_three_busy_seconds_while_another_process_is_idle() -> None:
    scene = Scene()
    assert scene.look(100.0, others=True) == 0b100
    scene.idle = False
    assert scene.look(102.9, others=True) == 0
    assert scene.left == []
    scene.look(103.1, others=True)
    scene.look(103.2, others=True)
    assert scene.left == [{"work"}]
    scene.idle = True
    assert scene.look(103.3, others=True, consumed=False) == 0, "not idle for a queue that it does not consume"
    assert scene.left == [{"work"}, set()]


def test_a_queue_is_consumed_again_when_no_other_process_is_idle_any_more_and_not_left_at_once_again() -> None:
    scene = Scene()
    scene.idle = False
    scene.look(0.0, others=False)
    scene.look(60.0, others=False)
    assert scene.left == []
    scene.look(61.0, others=True)
    assert scene.left == [{"work"}]
    scene.look(62.0, others=False)
    scene.look(64.0, others=True)
    assert scene.left == [{"work"}, set()]
    scene.look(65.1, others=True)
    assert scene.left == [{"work"}, set(), {"work"}]


def test_a_queue_has_the_same_bit_in_each_process_and_another_on_another_broker_or_virtual_host() -> None:
    one = bits_of(addresses("amqp://a:1/shop,amqp://b:2/shop"), ["work", "mail"])
    assert bits_of(addresses("amqp://x:y@b:2/shop,amqp://a:1/shop"), ["work"])["work"] == one["work"]
    assert one["mail"] != one["work"]
    assert bits_of(addresses("amqp://a:1/other,amqp://b:2/other"), ["work"])["work"] != one["work"]


@given(st.dictionaries(st.integers(), st.integers(0, 255), max_size=5))
def test_each_process_gets_the_idle_queues_of_all_others(idle: dict[int, int]) -> None:
    for serial, bits in idle_elsewhere(idle).items():
        expected = 0
        for other, theirs in idle.items():
            expected |= theirs if other != serial else 0
        assert bits == expected


class Child:
    """A process that records that it is idle."""

    pid = 1
    waits = ""
    paused: tuple[str, ...] = ()
    unknown: ClassVar[dict[str, int]] = {}

    def __init__(self, now: float) -> None:
        recorder = Recorder(1)
        recorder.record_idle(1)
        self.memory = recorder.memory
        found = read_recording(self.memory)
        assert found is not None
        heartbeats = tuple(now if number == MAIN else 0.0 for number in range(4))
        self.found = replace(found, heartbeats=heartbeats)
        self.elsewhere = -1

    def recording(self) -> Any:
        return self.found

    def resident_bytes(self) -> int:
        return 0

    def record_idle_elsewhere(self, bits: int) -> None:
        self.elsewhere = bits


def test_only_a_process_that_consumes_and_has_heartbeats_counts_as_idle() -> None:
    fleet = Fleet({"main": 3}, lambda: 1.0, {"main": 60.0})
    fleet.tick(100.0)
    fleet.on_ready(1, 5.0, 100.0)
    fleet.on_consuming(1, 100.0)
    for serial in (2, 3):
        fleet.on_ready(serial, 5.0, 100.0)
        fleet.on_consuming(serial, 100.0)
    children: dict[int, Any] = {1: Child(100.0), 2: Child(90.0), 3: Child(100.0)}
    monitor = Monitor({"main": pool_spec("main", WorkerOptions(app="shop:app", processes=3))}, 100.0)
    monitor.check(fleet, children, 100.5)
    assert [child.elsewhere for child in children.values()] == [1, 1, 1]
    fleet.on_exiting(3, "a task ran over its hard limit", 100.5)
    monitor.check(fleet, children, 101.5)
    assert [child.elsewhere for child in children.values()] == [0, 1, 1], "the first alone is idle"
