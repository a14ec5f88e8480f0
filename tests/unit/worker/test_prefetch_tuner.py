"""Which runs are measured for `--prefetch auto`, and when another prefetch is set."""

from __future__ import annotations

from collections.abc import Mapping

from amqpworker.hooks import Settled
from amqpworker.model.message import Delivery, Properties
from amqpworker.model.outcome import Dead, Deferred, Done
from amqpworker.worker.context import Run
from amqpworker.worker.prefetch_size import MAX_AUTO, Places
from amqpworker.worker.prefetch_tuner import SAMPLES, PrefetchTuner
from tests.unit.worker.settling import EXAMPLE


def delivery(queue: str, task: str = "note") -> Delivery:
    one = Delivery(1, False, "amqpworker.tasks", queue, Properties(type=task), b"{}")
    one.queue = queue
    return one


def ended(one: Delivery, seconds: float) -> Settled:
    run = Run(EXAMPLE, one, "id", 1, started=100.0, first_run=100.0)
    return Settled(one, Done(), run, 100.0 + seconds)


class Scene:
    """A tuner of two queues with four threads, which share the event loop."""

    def __init__(self, *queues: str) -> None:
        self.set: list[dict[str, int]] = []
        self.woken = 0
        self.suspects = 0
        self.running: list[tuple[Delivery, float]] = []
        self.tuner = PrefetchTuner(
            dict.fromkeys(queues or ("work", "mail"), Places(4, 100)),
            lambda: self.running,
            lambda one: one.properties.type == "coroutine",
            lambda: self.suspects,
            self._on_set,
            self._on_woken,
        )

    def _on_woken(self) -> None:
        self.woken += 1

    def _on_set(self, prefetch: Mapping[str, int]) -> None:
        self.set.append(dict(prefetch))

    def settle(self, count: int, seconds: float, queue: str = "work", task: str = "note") -> None:
        one = delivery(queue, task)
        self.tuner.on_settled([ended(one, seconds)] * count)


def test_the_prefetch_follows_what_runs_take_and_that_of_another_queue_stays() -> None:
    scene = Scene()
    scene.tuner.beat(0.0)
    scene.settle(20, 0.25)
    assert scene.set == []
    scene.tuner.beat(0.25)
    assert scene.set == [{"work": 8, "mail": 4}]
    scene.settle(20, 0.01, queue="mail")
    scene.tuner.beat(0.5)
    assert scene.set[1:] == [{"work": 8, "mail": 104}]


def test_messages_that_wait_for_another_worker_count_as_short_runs() -> None:
    scene = Scene("work")
    scene.tuner.beat(0.0)
    scene.tuner.on_settled([Settled(delivery("work"), Dead("malformed"), None, 100.0)] * 20)
    scene.tuner.beat(0.25)
    assert scene.set == []
    scene.tuner.on_settled([Settled(delivery("work"), Deferred(4.0, "no task", 1), None, 100.0)] * SAMPLES)
    scene.tuner.beat(0.5)
    assert scene.set == [{"work": MAX_AUTO}]


def test_coroutines_that_fill_the_prefetch_let_more_arrive_although_few_were_measured() -> None:
    scene = Scene("work")
    scene.running = [(delivery("work", "coroutine"), 0.3)] * 3
    scene.tuner.beat(0.0)
    assert scene.set == []
    scene.running = [(delivery("work", "coroutine"), 0.3)] * 4
    scene.tuner.beat(0.3)
    assert scene.set == [{"work": 32}]


def test_tasks_of_threads_that_fill_the_prefetch_do_not() -> None:
    scene = Scene("work")
    scene.running = [(delivery("work"), 0.3)] * 4
    scene.tuner.beat(0.3)
    assert scene.set == []


def test_a_queue_changes_once_in_ten_seconds() -> None:
    scene = Scene()
    scene.tuner.beat(0.0)
    scene.settle(20, 0.25)
    scene.tuner.beat(0.25)
    moment = 0.5
    while len(scene.set) == 1:
        scene.settle(20, 0.0)
        scene.tuner.beat(moment)
        moment += 0.25
    assert moment - 0.25 == 10.25


def test_what_fits_already_is_not_set_again() -> None:
    scene = Scene()
    scene.tuner.beat(0.0)
    scene.settle(20, 5)
    for moment in range(30):
        scene.tuner.beat(float(moment))
    assert scene.set == []


def test_tasks_that_have_not_ended_count_once_they_run_for_a_while() -> None:
    scene = Scene()
    scene.running = [(delivery("work", "coroutine"), 0.2)] * 8
    scene.tuner.beat(0.0)
    assert scene.set == []
    scene.running = [(delivery("work", "coroutine"), 0.5)] * 8
    scene.tuner.beat(0.25)
    assert scene.set == [{"work": 64, "mail": 4}], "there is room for more coroutines"


def test_the_first_decision_is_made_as_soon_as_there_are_enough_runs() -> None:
    scene = Scene()
    scene.settle(SAMPLES - 1, 0.0)
    assert scene.woken == 0
    scene.settle(1, 0.0)
    assert scene.woken == 1
    scene.tuner.beat(0.0)
    assert scene.set == [{"work": 512, "mail": 4}]
    scene.settle(SAMPLES, 0.0)
    assert scene.woken == 1, "the next one is made when its time has come"


def test_only_some_runs_are_measured_between_two_beats() -> None:
    scene = Scene()
    scene.tuner.beat(0.0)
    scene.settle(40, 1.0)
    scene.settle(1000, 1.0)
    scene.settle(1000, 1.0)
    assert len(scene.tuner._samples) == SAMPLES
    scene.tuner.beat(0.25)
    assert len(scene.tuner._samples) == 0


def test_suspects_that_wait_leave_each_thread_a_message_that_may_run() -> None:
    scene = Scene("work")
    scene.tuner.beat(0.0)
    scene.suspects = 3
    scene.tuner.beat(0.25)
    scene.suspects = 0
    scene.tuner.beat(10.0)
    assert scene.set == [{"work": 7}]
    scene.tuner.beat(10.25)
    assert scene.set == [{"work": 7}, {"work": 4}]


def test_what_did_not_run_is_not_measured() -> None:
    scene = Scene()
    scene.tuner.beat(0.0)
    scene.tuner.on_settled([Settled(delivery("work"), Done(), None, 100.0)] * 50)
    scene.tuner.beat(0.25)
    assert scene.set == []


def test_a_queue_with_a_number_is_left_alone() -> None:
    scene = Scene("mail")
    scene.tuner.beat(0.0)
    scene.settle(50, 0.0, queue="work")
    scene.running = [(delivery("work"), 5.0)]
    scene.tuner.beat(0.25)
    assert scene.set == []


def test_nothing_is_measured_if_each_queue_has_a_number() -> None:
    scene = Scene()
    none = PrefetchTuner({}, lambda: scene.running, lambda _: False, lambda: 0, scene._on_set)
    none.beat(0.0)
    one = delivery("work")
    none.on_settled([ended(one, 1.0)])
    assert len(none._samples) == 0
