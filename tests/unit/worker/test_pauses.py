"""What a worker makes of the stream of pauses: which queues it leaves alone, which messages wait, what it reports."""

from __future__ import annotations

import json
from typing import Any

from amqpworker import App
from amqpworker.broker.consumer_channel import Subscription
from amqpworker.ipc.pipes import Report, Reporter
from amqpworker.model.message import Delivery, Properties
from amqpworker.model.outcome import Deferred
from amqpworker.worker.pauses import Pauses


class HeardReporter(Reporter):
    """A reporter that keeps what it sends, or has no room."""

    def __init__(self) -> None:
        super().__init__(None)
        self.heard: list[Report] = []
        self.has_room = True

    def send(self, report: Report) -> bool:
        if self.has_room:
            self.heard.append(report)
        return self.has_room


def app() -> App:
    made = App("amqp://127.0.0.1:1/")
    made.task(name="note", queue="work", aliases=["older"])(lambda: None)
    made.task(name="other", queue="work")(lambda: None)
    return made


class Scene:
    """The pauses of a process that consumes `work`, and what it reports."""

    def __init__(self) -> None:
        self.paused: list[frozenset[str]] = []
        self.reporter = HeardReporter()
        self.pauses = Pauses(app().tasks, [Subscription("work", 1)], self.paused.append, self.reporter)
        self.offset = -1

    def entry(self, **names: Any) -> None:
        self.offset += 1
        body = json.dumps({"queues": {}, "tasks": {}, "base": self.offset - 1, **names}).encode()
        self.add(body)

    def add(self, body: bytes) -> None:
        headers = {"x-stream-offset": self.offset}
        self.pauses.on_entry(delivery(Properties(message_id=f"id-{self.offset}", headers=headers), body))

    def outcome(self, task: str) -> Any:
        return self.pauses.gate(delivery(Properties(type=task)), {})

    def reports(self) -> list[tuple[str, ...]]:
        self.pauses.beat(0.0)
        return [one.keys for one in self.reporter.heard]


def delivery(properties: Properties, body: bytes = b"{}") -> Delivery:
    made: Any = Delivery.__new__(Delivery)
    made.properties, made.body = properties, body
    found: Delivery = made
    return found


def test_the_queues_are_known_once_the_stream_is_read() -> None:
    scene = Scene()
    scene.entry(queues={"work": "x"})
    assert scene.paused == [], "the process does not consume yet"
    scene.pauses.on_ready()
    scene.entry(queues={"work": "x", "elsewhere": "x"})
    scene.entry(queues={"work": "later", "elsewhere": "x"})
    scene.entry()
    assert scene.paused == [{"work"}, {"work", "elsewhere"}, frozenset()], "only what changes"


def test_a_paused_task_waits_by_each_of_its_names_and_others_run() -> None:
    scene = Scene()
    assert scene.outcome("note") is None
    scene.entry(tasks={"note": "x", "elsewhere": "x"})
    waits = scene.outcome("note")
    assert isinstance(waits, Deferred)
    assert (waits.delay, waits.unknown_since) == (64.0, None)
    assert scene.outcome("older") == scene.outcome("elsewhere") == waits
    assert scene.outcome("other") is scene.outcome("unknown") is None
    scene.entry()
    assert scene.outcome("note") is None


def test_what_cannot_be_read_changes_nothing() -> None:
    scene = Scene()
    scene.pauses.on_ready()
    scene.entry(queues={"work": "x"})
    scene.offset += 1
    scene.add(b"nonsense")
    assert scene.paused[-1] == {"work"}


def test_what_the_process_has_of_it_is_reported_when_it_changes_and_there_is_room() -> None:
    scene = Scene()
    assert scene.reports() == []
    scene.entry(queues={"work": "x", "elsewhere": "x"}, tasks={"note": "x", "unknown": "x"})
    scene.reporter.has_room = False
    assert scene.reports() == []
    scene.reporter.has_room = True
    assert scene.reports() == scene.reports() == [("queue work", "task note")]
    scene.entry()
    assert scene.reports()[-1] == ()
