"""How a worker stops: it takes no more, requeues what is unclaimed, finishes and settles what runs, and exits."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from amqpworker import App
from tests import workertasks
from tests.programs import Program, whole_lines
from tests.proxy import Proxy
from tests.support import Broker, wait_until
from tests.workers import LocalWorker, real_worker, running

QUEUE = "work"


def runs(folder: Path) -> list[str]:
    """Return what the tasks of a real worker have noted, such as `note-1`."""
    return [line.split()[0] for line in whole_lines(folder / "runs.txt")]


def put(broker: Broker, task: str, body: str) -> None:
    assert broker.management.publish(broker.vhost, "amqpworker.tasks", QUEUE, body, {"type": task, "delivery_mode": 2})


def drains(worker: LocalWorker) -> None:
    """Wait until a worker has cancelled its subscription."""
    channel = worker.process.consumer._channels[QUEUE]
    wait_until(lambda: channel.consumer_tag is None, what="it consumes no more")


# ---- in this process ------------------------------------------------------------------------------------------------


def test_a_drain_requeues_at_once_what_is_unclaimed_and_finishes_what_runs(vhost: Broker, app: App) -> None:
    go = threading.Event()
    began: list[int] = []
    ended: list[int] = []

    @app.task(name="hold", queue=QUEUE)
    def hold(n: int) -> None:
        began.append(n)
        go.wait(60)
        ended.append(n)

    with running(app, threads=2, prefetch=10) as worker:
        app.send_many(hold.message(n) for n in range(10))
        wait_until(lambda: len(began) == 2, what="two run, eight wait in the worker")
        vhost.wait_for_count(QUEUE, 0)
        worker.process.stop_requested.set()
        # Others get them while the two still run.
        vhost.wait_for_count(QUEUE, 8)
        drains(worker)
        hold.send(10)
        vhost.wait_for_count(QUEUE, 9)
        assert worker.code is None, "it waits for those that run"
        assert ended == []
        go.set()
        wait_until(lambda: worker.code == 0, what="it ends")
    assert sorted(began) == sorted(ended), "nothing else was begun"
    assert len(ended) == 2
    assert vhost.count(QUEUE) == 9, "and those two were acknowledged"


def test_a_drain_waits_until_a_retry_and_a_dead_letter_are_confirmed(vhost: Broker, app: App) -> None:
    go = threading.Event()
    began: list[str] = []

    @app.task(name="retry", queue=QUEUE, retry=[60])
    def retry() -> None:
        began.append("retry")
        go.wait(60)
        raise OSError

    @app.task(name="dead", queue=QUEUE, retry=None)
    def dead() -> None:
        began.append("dead")
        go.wait(60)
        raise OSError

    with running(app, threads=2) as worker:
        retry.send()
        dead.send()
        wait_until(lambda: len(began) == 2, what="both run")
        worker.process.stop_requested.set()
        drains(worker)
        go.set()
    assert vhost.count(QUEUE) == 0
    assert vhost.count(f"{QUEUE}.dead") == 1
    assert vhost.count("amqpworker.delay.08") == 1


def test_a_drain_waits_until_an_answer_has_left(vhost: Broker, make_app: Callable[..., App]) -> None:
    app, caller = make_app(), make_app()
    go, began = threading.Event(), threading.Event()

    @app.task(name="give", queue=QUEUE)
    def give() -> int:
        began.set()
        go.wait(60)
        return 3

    @caller.remote(name="give", queue=QUEUE)
    def ask() -> int: ...

    answers: list[int] = []
    with running(app, threads=1) as worker:
        calling = threading.Thread(target=lambda: answers.append(ask.options(timeout=20).call()))
        calling.start()
        assert began.wait(10)
        worker.process.stop_requested.set()
        drains(worker)
        go.set()
        calling.join(20)
    assert answers == [3]
    assert vhost.count(QUEUE) == 0


def test_what_does_not_end_in_time_is_abandoned_and_redelivered(vhost: Broker, app: App) -> None:
    go, began = threading.Event(), threading.Event()

    @app.task(name="hold", queue=QUEUE)
    def hold() -> None:
        began.set()
        go.wait(60)

    with running(app, threads=1, drain_timeout=0.2, code=3) as worker:
        hold.send()
        assert began.wait(10)
        since = time.monotonic()
        worker.process.stop_requested.set()
        wait_until(lambda: worker.code is not None, what="it ends")
        assert time.monotonic() - since < 5
    go.set()
    vhost.wait_for_count(QUEUE, 1)


def test_a_worker_without_a_broker_stops_at_once(make_app: Callable[..., App]) -> None:
    app = make_app("amqp://guest:guest@127.0.0.1:1/")

    @app.task(name="note", queue=QUEUE)
    def note() -> None: ...

    with running(app, wait=False, threads=1) as worker:
        wait_until(lambda: worker.process.consumer.problem is not None, what="it finds no broker")
        since = time.monotonic()
        worker.stop()
        assert time.monotonic() - since < 3


def test_a_worker_that_loses_its_broker_while_it_drains_still_ends(vhost: Broker, make_app: Callable[..., App]) -> None:
    go, began = threading.Event(), threading.Event()
    with Proxy(vhost.url) as proxy:
        app = make_app(proxy.url)

        @app.task(name="hold", queue=QUEUE)
        def hold() -> None:
            began.set()
            go.wait(60)

        worker = LocalWorker(app, threads=1)
        worker.start()
        hold.send()
        assert began.wait(10)
        worker.process.stop_requested.set()
    wait_until(lambda: worker.process.consumer.problem is not None, what="the connection is lost")
    since = time.monotonic()
    go.set()
    assert worker.stop() == 0
    assert time.monotonic() - since < 10
    vhost.wait_for_count(QUEUE, 1)


# ---- real processes -------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def started(worker: Program) -> None:
    worker.wait_for("queue_consuming")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_a_signal_drains_and_the_exit_code_is_0(vhost: Broker, folder: Path, number: int) -> None:
    with real_worker(vhost, folder, threads=1, prefetch=5) as worker:
        started(worker)
        put(vhost, "hold", '{"name": "go"}')
        for n in range(4):
            put(vhost, "note", f'{{"n": {n}}}')
        wait_until(lambda: runs(folder) == ["hold-go"], what="the first runs")
        worker.signal(number)
        vhost.wait_for_count(QUEUE, 4)
        (folder / "go").touch()
        assert worker.end() == 0
    assert runs(folder) == ["hold-go", "held-go"]
    assert vhost.count(QUEUE) == 4


def test_what_user_code_left_for_the_exit_is_done_whatever_it_closed(vhost: Broker, folder: Path) -> None:
    with real_worker(vhost, folder, threads=1) as worker:
        started(worker)
        put(vhost, "last-words", "{}")
        wait_until(lambda: runs(folder) == ["last-words"], what="it runs")
        worker.signal(signal.SIGTERM)
        assert worker.end() == 0
    assert (folder / "said").exists()
    assert vhost.count(QUEUE) == 0


def test_what_runs_too_long_is_abandoned_with_exit_code_3(vhost: Broker, folder: Path) -> None:
    with real_worker(vhost, folder, threads=1, drain_timeout=0.3) as worker:
        started(worker)
        put(vhost, "hold", '{"name": "go"}')
        wait_until(lambda: runs(folder) == ["hold-go"], what="it runs")
        worker.signal(signal.SIGTERM)
        assert worker.end() == 3
        assert worker.wait_for("tasks_abandoned")[0]["running"] == ["hold"]
    vhost.wait_for_count(QUEUE, 1)


def test_a_second_ctrl_c_ends_at_once(vhost: Broker, folder: Path) -> None:
    with real_worker(vhost, folder, threads=1, drain_timeout=60) as worker:
        started(worker)
        put(vhost, "hold", '{"name": "go"}')
        wait_until(lambda: runs(folder) == ["hold-go"], what="it runs")
        worker.signal(signal.SIGINT)
        worker.wait_for("worker_draining")
        since = time.monotonic()
        worker.signal(signal.SIGINT)
        assert worker.end() == 3
        assert time.monotonic() - since < 5
    vhost.wait_for_count(QUEUE, 1)


def test_a_coroutine_that_is_abandoned_is_cancelled_and_redelivered(vhost: Broker, folder: Path) -> None:
    with real_worker(vhost, folder, threads=1, drain_timeout=0.3, async_tasks=1) as worker:
        started(worker)
        put(vhost, "hold-coroutine", '{"name": "go"}')
        put(vhost, "hold-coroutine", '{"name": "wait"}')
        wait_until(lambda: runs(folder) == ["hold-go"], what="the first runs")
        worker.signal(signal.SIGTERM)
        assert worker.end() == 3
    assert runs(folder) == ["hold-go", "held-go"], "its cleaning-up was done; the other never began"
    vhost.wait_for_count(QUEUE, 2)
    assert vhost.count(f"{QUEUE}.dead") == 0
    assert vhost.count("amqpworker.delay.00") == 0


def test_a_process_without_its_parent_drains_by_itself(vhost: Broker, folder: Path) -> None:
    """However the parent ended: the pipe that it held open is closed."""
    with real_worker(vhost, folder, threads=1) as worker:
        started(worker)
        assert worker.process.stdin is not None
        worker.process.stdin.close()
        assert worker.end() == 0
        worker.wait_for("supervisor_lost")


def test_a_pool_drains_all_its_processes(vhost: Broker, folder: Path) -> None:
    with real_worker(vhost, folder, pool=2, threads=1, prefetch=1) as worker:
        worker.wait_for("queue_consuming", 2)
        for _ in range(2):
            put(vhost, "hold", '{"name": "go"}')
        put(vhost, "note", '{"n": 1}')
        wait_until(lambda: runs(folder) == ["hold-go"] * 2, what="both run one")
        worker.signal(signal.SIGTERM)
        worker.wait_for("worker_draining", 2)
        (folder / "go").touch()
        assert worker.end() == 0
    assert sorted(runs(folder)) == ["held-go"] * 2 + ["hold-go"] * 2
    assert vhost.count(QUEUE) == 1


def test_a_process_of_a_pool_that_dies_is_replaced_and_its_message_redelivered(vhost: Broker, folder: Path) -> None:
    with real_worker(vhost, folder, pool=1, threads=1) as worker:
        started(worker)
        put(vhost, "die", '{"name": "live"}')
        (died,) = worker.wait_for("process_died")
        assert died["exit_status"] == "exit code 66"
        (folder / "live").touch()
        wait_until(lambda: runs(folder).count("die-live") >= 2, 20, "it runs again")
        wait_until(lambda: vhost.count(QUEUE) == 0, what="it is done")
        worker.signal(signal.SIGTERM)
        assert worker.end() == 0
    assert vhost.count(QUEUE) == 0
    assert workertasks.QUEUE == QUEUE
