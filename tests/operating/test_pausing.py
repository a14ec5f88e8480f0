"""Pausing queues and tasks: in all workers, in those that start later, and whatever happens to the stream meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import pytest

from amqpworker import App, CallTimeout, ConfigError
from amqpworker.broker import stream_reader
from amqpworker.model.outcome import Deferred
from amqpworker.model.paused import Paused
from amqpworker.task import Task
from amqpworker.worker import outcomes
from amqpworker.worker.pauses import Pauses
from tests.support import Broker, raw_publish, wait_until
from tests.workers import LocalWorker, running

QUEUE = "work"
CONTROL = "amqpworker.control"
MakeApp = Callable[..., App]


class Scene:
    """Apps with the same tasks, and what has run in which of them."""

    def __init__(self, make_app: MakeApp) -> None:
        self.ran: list[tuple[str, int]] = []
        self.go = threading.Event()
        self._make_app = make_app
        self._tasks: dict[str, Task[[int], None]] = {}
        self.app = self.make("client")
        self.note, self.hold, self.other = (self._tasks[name] for name in ("note", "hold", "other"))

    def make(self, owner: str, **settings: object) -> App:
        """Make an app; those who run its tasks are noted as `owner`."""
        app = self._make_app(**settings)

        @app.task(name="note", queue=QUEUE, aliases=["older-note"])
        def note(n: int) -> None:
            self.ran.append((owner, n))

        @app.task(name="hold", queue=QUEUE)
        def hold(n: int) -> None:
            self.ran.append((owner, n))
            self.go.wait(30)

        @app.task(name="other", queue="others")
        def other(n: int) -> None:
            self.ran.append((owner, n))

        self._tasks = {"note": note, "hold": hold, "other": other}
        return app

    @contextmanager
    def worker(self, owner: str = "worker", threads: int = 2, **settings: object) -> Iterator[LocalWorker]:
        """Run a worker of an app of its own."""
        with running(self.make(owner, **settings), threads=threads, prefetch=8) as worker:
            try:
                yield worker
            finally:
                self.go.set()

    def numbers(self) -> list[int]:
        """Return which numbers have run, sorted."""
        return sorted(n for _, n in self.ran)

    def wait_for(self, *numbers: int, timeout: float = 10.0) -> None:
        """Wait until exactly these have run."""
        wait_until(lambda: self.numbers() == sorted(numbers), timeout, f"{numbers} have run")


@pytest.fixture
def scene(make_app: MakeApp) -> Scene:
    return Scene(make_app)


def paused_tasks(worker: LocalWorker) -> frozenset[str]:
    """Return the tasks that a worker knows to be paused."""
    (pauses,) = [one for one in worker.process.services if isinstance(one, Pauses)]
    return pauses._paused_tasks


def wait_until_paused(*workers: LocalWorker, queue: str = QUEUE) -> None:
    """Wait until the broker has no consumer of theirs."""
    for worker in workers:
        consumer = worker.process.consumer
        wait_until(partial(lambda one: queue not in one.subscribed(), consumer), 3.0, "it is paused within 3 s")


def test_a_paused_queue_is_left_alone_by_all_workers_and_by_those_that_start_later(vhost: Broker, scene: Scene) -> None:
    with scene.worker("first") as first, scene.worker("second") as second:
        assert scene.app.queues.pause(QUEUE)
        wait_until_paused(first, second)
        for n in range(4):
            scene.note.send(n)
        scene.other.send(10)
        scene.wait_for(10)
        with scene.worker("third") as third:
            assert third.process.consumer.consuming, "a worker whose queue is paused is ready"
            assert vhost.consumers(QUEUE) == 0
            assert vhost.count(QUEUE) == 4
            assert scene.numbers() == [10]
            assert scene.app.queues.resume(QUEUE)
            scene.wait_for(0, 1, 2, 3, 10)
            wait_until(lambda: QUEUE in third.process.consumer.subscribed(), 3.0, "all consume again")
    assert vhost.count(QUEUE) == 0


def test_a_worker_that_starts_while_all_its_queues_are_paused_is_ready(vhost: Broker, make_app: MakeApp) -> None:
    app = make_app()
    ran: list[int] = []

    @app.task(name="note", queue=QUEUE)
    def note(n: int) -> None:
        ran.append(n)

    note.send(1)
    app.queues.pause(QUEUE)
    with running(app) as worker:
        assert worker.process.consumer.consuming
        assert (ran, vhost.count(QUEUE)) == ([], 1)
        app.queues.resume(QUEUE)
        wait_until(lambda: ran == [1], what="it runs")


def test_what_runs_continues_and_what_has_not_started_returns_to_its_queue(vhost: Broker, scene: Scene) -> None:
    with scene.worker(threads=1) as worker:
        scene.hold.send(0)
        scene.wait_for(0)
        for n in (1, 2, 3):
            scene.note.send(n)
        vhost.wait_for_count(QUEUE, 0)
        scene.app.queues.pause(QUEUE)
        vhost.wait_for_count(QUEUE, 3)
        scene.go.set()
        wait_until(lambda: not worker.process.runners.running, what="the task that ran has ended")
        assert scene.numbers() == [0]
        scene.app.queues.resume(QUEUE)
        scene.wait_for(0, 1, 2, 3)
    assert vhost.count(QUEUE) == 0, "the one that ran was acknowledged on the channel of the paused queue"


def test_a_pause_survives_a_lost_connection(vhost: Broker, scene: Scene) -> None:
    with scene.worker() as worker:
        scene.app.queues.pause(QUEUE)
        wait_until_paused(worker)
        worker.process.consumer.keeper.wake()
        opened_before = worker.process.consumer._connection

        def close_all() -> bool:
            names = [one["name"] for one in vhost.management.connections(vhost.vhost)]
            for name in names:
                vhost.management.close_connection(name)
            return len(names) >= 3

        wait_until(close_all, 10, "the connections were closed")
        wait_until(
            lambda: worker.process.consumer._connection not in {None, opened_before}, 10, "it is connected again"
        )
        scene.note.send(1)
        wait_until(lambda: worker.process.consumer.consuming, 10, "it is ready")
        assert vhost.count(QUEUE) == 1
        assert scene.numbers() == []
        scene.app.queues.resume(QUEUE)
        scene.wait_for(1)


def test_calls_to_a_paused_queue_time_out_and_do_not_run_later(scene: Scene) -> None:
    with scene.worker() as worker:
        scene.app.queues.pause(QUEUE)
        wait_until_paused(worker)
        with pytest.raises(CallTimeout):
            scene.note.options(timeout=0.3).call(1)
        assert scene.numbers() == []


def test_a_paused_task_waits_in_the_ladder_while_other_tasks_of_its_queue_run(
    vhost: Broker, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcomes, "PAUSED", Deferred(0.5, "the task is paused"))
    with scene.worker() as worker:
        assert scene.app.queues.pause_task("older-note"), "an alias is the task"
        wait_until(lambda: paused_tasks(worker) == {"note"}, 3, "it is known")
        for n in (1, 2):
            scene.note.send(n)
        scene.go.set()
        scene.hold.send(3)
        scene.wait_for(3)
        vhost.wait_for_count(QUEUE, 0)
        with pytest.raises(CallTimeout):
            scene.note.options(timeout=0.2).call(4)
        scene.app.queues.resume_task("note")
        wait_until(lambda: {1, 2} <= set(scene.numbers()), what="what waited has run")
    assert vhost.count("work.dead") == 0


def test_expiry_counts_before_a_pause(vhost: Broker, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes, "PAUSED", Deferred(0.25, "the task is paused"))
    with scene.worker() as worker:
        scene.app.queues.pause_task("note")
        wait_until(lambda: "note" in paused_tasks(worker), what="the worker knows")
        scene.note.options(expires=0.5).send(1)
        vhost.wait_for_count("work.dead", 1)
    assert scene.numbers() == []


def test_changes_at_the_same_time_are_all_in_effect(scene: Scene, make_app: MakeApp) -> None:
    apps = [scene.make(f"operator {n}") for n in range(4)]
    scene.app.queues.pause(QUEUE)

    def change(app: App) -> None:
        number = apps.index(app)
        if number == 0:
            app.queues.resume(QUEUE)
        elif number == 1:
            app.queues.pause("others")
        else:
            app.queues.pause_task(["note", "hold"][number - 2])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(change, apps))
    paused = scene.app.queues.paused()
    assert (set(paused.queues), set(paused.tasks)) == ({"others"}, {"note", "hold"})
    assert not scene.app.queues.pause("others"), "it is paused already"
    assert not scene.app.queues.resume(QUEUE), "it is not paused"


def test_a_change_that_was_lost_with_its_writer_is_found(vhost: Broker, scene: Scene) -> None:
    """Another writer has overwritten it, and was killed before it could repair that."""
    scene.app.queues.pause("others")
    scene.app.queues.pause(QUEUE)
    late = '{"queues": {"others": "x"}, "tasks": {"hold": "x"}, "base": 0, "change": {"action": "pause", "task": "hold", "at": "x"}}'
    raw_publish(vhost.url, CONTROL, "", late)
    paused = scene.app.queues.paused()
    assert (set(paused.queues), set(paused.tasks)) == ({"others", QUEUE}, {"hold"})
    scene.app.queues.resume("others")
    assert set(scene.app.queues.paused().queues) == {QUEUE}


def test_the_names_of_an_app_are_known_and_others_refused(scene: Scene) -> None:
    with pytest.raises(ConfigError, match="did you mean work"):
        scene.app.queues.pause("wokr")
    with pytest.raises(ConfigError, match="did you mean note"):
        scene.app.queues.pause_task("noet")
    with pytest.raises(ConfigError, match="has no queue"):
        scene.app.queues.resume("gone")
    assert scene.app.queues.paused() == Paused()


def test_what_an_older_app_has_paused_can_be_resumed(scene: Scene, make_app: MakeApp) -> None:
    scene.app.queues.pause("others")
    scene.app.queues.pause_task("hold")
    newer = make_app()
    assert newer.queues.resume("others")
    assert newer.queues.resume_task("hold")
    assert scene.app.queues.paused() == Paused()


def delete_stream(vhost: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """Delete the stream of pauses, and wait until a worker has declared it again and reported that."""
    vhost.management.delete_queue(vhost.vhost, CONTROL)
    wait_until(lambda: any("stream_recreated" in one for one in caplog.messages), 10, "it is declared again")


def test_if_the_stream_is_deleted_workers_keep_what_they_knew_until_the_next_change(
    vhost: Broker, scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stream_reader, "RETRY_AFTER", 0.2)
    with scene.worker() as worker:
        scene.app.queues.pause(QUEUE)
        wait_until_paused(worker)
        delete_stream(vhost, caplog)
        scene.note.send(1)
        assert worker.process.consumer.consuming
        assert vhost.count(QUEUE) == 1
        assert scene.app.queues.paused() == Paused(), "who starts now knows nothing"
        scene.app.queues.pause(QUEUE)
        assert vhost.count(QUEUE) == 1
        scene.app.queues.resume(QUEUE)
        scene.wait_for(1)


def test_after_the_stream_was_deleted_the_next_change_is_the_whole_and_what_it_forgets_is_reported(
    vhost: Broker, scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stream_reader, "RETRY_AFTER", 0.2)
    with scene.worker() as worker:
        scene.app.queues.pause(QUEUE)
        scene.app.queues.pause_task("hold")
        wait_until_paused(worker)
        wait_until(lambda: paused_tasks(worker) == {"hold"})
        delete_stream(vhost, caplog)
        caplog.clear()
        scene.app.queues.pause("others")
        wait_until_paused(worker, queue="others")
        assert any("pauses_begin" in one for one in caplog.messages)
        (forgotten,) = [one for one in caplog.messages if "pauses_forgotten" in one]
        assert QUEUE in forgotten
        assert "hold" in forgotten
        scene.note.send(1)
        scene.wait_for(1)
        with scene.worker("later") as later:
            wait_until_paused(later, queue="others")


def test_what_workers_still_have_paused_can_be_resumed_after_the_stream_was_deleted(
    vhost: Broker, scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stream_reader, "RETRY_AFTER", 0.2)
    with scene.worker() as worker:
        scene.app.queues.pause(QUEUE)
        wait_until_paused(worker)
        delete_stream(vhost, caplog)
        scene.note.send(1)
        assert not scene.app.queues.resume(QUEUE), "the stream does not have it"
        scene.wait_for(1)
        assert not any("pauses_forgotten" in one for one in caplog.messages)


def test_without_the_stream_workers_run_and_pausing_is_refused(
    vhost: Broker, make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene(make_app)
    with scene.worker():
        pass
    vhost.management.delete_queue(vhost.vhost, CONTROL)
    with scene.worker("second", declare=False) as worker:
        scene.note.send(1)
        scene.wait_for(1)
        assert worker.process.consumer.consuming
        client = make_app(declare=False)
        client.queue(QUEUE)
        with pytest.raises(ConfigError, match=r"amqpworker\.control.* cannot be read: .*does not exist"):
            client.queues.pause(QUEUE)
    missing = [one for one in caplog.messages if "stream_not_followed" in one and CONTROL in one]
    assert len([one for one in missing if "does not exist" in one]) >= 1


def test_a_worker_that_may_not_read_the_streams_runs_with_one_warning(
    vhost: Broker, make_app: MakeApp, stranger: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    """As workers with the permissions of before the streams."""
    scene = Scene(make_app)
    with scene.worker():
        pass
    url = stranger("", r"^(amqpworker\.(due|dead|delay\.\d\d)|amq\.default)$", f"^({QUEUE}|others)$")
    caplog.clear()
    began = time.monotonic()
    with scene.worker("second", url=url, declare=False):
        assert time.monotonic() - began < 4, "nothing waits for the stream"
        scene.note.send(1)
        scene.wait_for(1)
    warnings = [one for one in caplog.messages if "stream_not_followed" in one]
    assert len(warnings) == 2, "one for each stream"
    assert all("lacks the permission `read`" in one for one in warnings)
