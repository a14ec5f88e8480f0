"""A redelivered message is held until the supervisor has replied, and never for long."""

from __future__ import annotations

import time

from amqpworker.model.message import Delivery, Properties, new_id
from amqpworker.worker.isolation.suspects import PATIENCE, SuspectQuery


class Scene:
    """A query whose supervisor accepts `room` questions; with None, there is no supervisor."""

    def __init__(self, room: int | None = 100) -> None:
        self.room = room
        self.asked: list[str] = []
        self.batches: list[int] = []
        self.wakes = 0
        self.ran: list[int] = []
        self.isolated: list[int] = []
        self.inquiry = SuspectQuery(
            None if room is None else self.ask,
            lambda delivery: self.ran.append(delivery.tag),
            lambda delivery: self.isolated.append(delivery.tag),
            self.wake,
        )

    def wake(self) -> None:
        self.wakes += 1

    def ask(self, keys: tuple[str, ...]) -> bool:
        assert self.room is not None
        if len(self.asked) + len(keys) > self.room:
            return False
        self.asked += keys
        self.batches.append(len(keys))
        return True

    def deliver(self, tag: int, message_id: str | None = None) -> None:
        self.inquiry.ask_about(Delivery(tag, True, "", "work", Properties(message_id=message_id), b"{}"))


def test_a_message_runs_isolated_only_if_the_supervisor_suspects_it() -> None:
    scene = Scene()
    scene.deliver(1, "a")
    scene.deliver(2, "b")
    assert (scene.ran, scene.isolated) == ([], [])
    scene.inquiry.on_answer(["b"], suspect=True)
    scene.inquiry.on_answer(["a"], suspect=False)
    assert (scene.ran, scene.isolated) == ([1], [2])


def test_messages_with_the_same_key_are_asked_about_once() -> None:
    scene = Scene()
    scene.deliver(1)
    scene.deliver(2)
    scene.inquiry.flush()
    assert len(scene.asked) == 1
    scene.inquiry.on_answer(scene.asked, suspect=True)
    assert scene.isolated == [1, 2]


def test_a_reply_about_an_unknown_message_is_ignored() -> None:
    scene = Scene()
    scene.inquiry.on_answer(["x"], suspect=True)
    assert (scene.ran, scene.isolated) == ([], [])


def test_a_message_without_a_reply_in_time_runs_isolated() -> None:
    scene = Scene()
    scene.deliver(1, "a")
    scene.inquiry.check(time.monotonic())
    assert scene.isolated == []
    scene.inquiry.check(time.monotonic() + PATIENCE + 1)
    assert scene.isolated == [1]
    scene.inquiry.on_answer(["a"], suspect=False)
    assert scene.ran == []


def test_questions_that_could_not_be_sent_at_once_are_sent_later() -> None:
    scene = Scene(room=0)
    for tag, message_id in enumerate("abc"):
        scene.deliver(tag, message_id)
    scene.inquiry.flush()
    assert scene.asked == []
    scene.room = 3
    scene.inquiry.check(time.monotonic())
    assert scene.asked == ["a", "b", "c"]


def test_messages_that_are_redelivered_together_are_asked_about_in_few_questions() -> None:
    scene = Scene(room=2000)
    ids = [new_id() for _ in range(1000)]
    for tag, message_id in enumerate(ids):
        scene.deliver(tag, message_id)
    assert (scene.wakes, scene.asked) == (1, [])
    scene.inquiry.flush()
    assert scene.asked == ids
    assert len(scene.batches) < 15
    scene.inquiry.on_answer(ids, suspect=False)
    assert scene.ran == list(range(1000))
    scene.deliver(1000)
    assert scene.wakes == 2


def test_without_a_supervisor_a_message_runs_at_once() -> None:
    scene = Scene(room=None)
    scene.deliver(1, "a")
    assert scene.ran == [1]
