"""Who uses an app, what is alive, and threads that start at most once: from several threads, and across forks."""

from __future__ import annotations

import gc
import threading

import pytest

from amqpworker import App, NotConnected, Settings
from amqpworker.broker import single_start_thread
from amqpworker.broker.single_start_thread import SingleStartThread
from amqpworker.lifecycle import LiveObjects, backoff, in_io_thread
from tests.support import in_child, wait_until

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


class Thing:
    """Something that lives."""


def test_what_is_gone_is_not_alive_and_what_was_inherited_is_distinguished() -> None:
    living: LiveObjects[Thing] = LiveObjects()
    one, other = Thing(), Thing()
    living.add(one)
    living.add(one)
    living.add(other)
    assert sorted(map(id, living.all())) == sorted(map(id, (one, other)))
    assert in_child(lambda: len(living.all()) == 2 and living.of_this_process() == [])
    del other
    gc.collect()
    assert living.of_this_process() == [one]


def test_a_thread_that_is_started_many_times_runs_once_as_one_that_keeps_a_connection() -> None:
    runs: list[bool] = []

    def run() -> None:
        runs.append(in_io_thread())
        thread.finished()

    thread = SingleStartThread(run, "tested", lambda _: None)
    starters = [threading.Thread(target=thread.start) for _ in range(8)]
    for one in starters:
        one.start()
    for one in starters:
        one.join(10)
    assert thread.join(10)
    assert runs == [True]
    assert not in_io_thread()


def test_a_thread_that_was_prevented_never_runs() -> None:
    runs: list[int] = []
    thread = SingleStartThread(lambda: runs.append(1), "tested", lambda _: None)
    assert thread.prevent()
    thread.start()
    assert not thread.prevent()
    assert runs == []


def test_the_first_send_without_room_for_a_thread_is_an_error_with_that_reason_and_the_next_tries_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = App("amqp://127.0.0.1:1/", settings=Settings(send_timeout=0.2))

    @app.remote(name="test.echo", queue="work")
    def echo(text: str) -> str: ...

    def refused(*_: object) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    with monkeypatch.context() as patch:
        patch.setattr(single_start_thread._thread, "start_new_thread", refused)
        for send in (echo.send, echo.call):
            with pytest.raises(NotConnected, match="No thread can be started") as caught:
                send("x")
            assert caught.value.message is not None
        (outcome,) = app.send_each([echo.message("x")])
        assert isinstance(outcome, NotConnected)
    with pytest.raises(NotConnected, match="connection refused"):
        echo.send("x")
    app.close()


def test_a_machine_without_room_for_a_thread_fails_the_send_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    app = App("amqp://127.0.0.1:1/", settings=Settings(send_timeout=60.0))

    @app.remote(name="test.echo", queue="work")
    def echo(text: str) -> str: ...

    def refused(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refused)
        with pytest.raises(NotConnected, match="limit of processes and threads is reached"):
            echo.send("x")


def test_importing_and_dropping_many_apps_leaves_no_hook_behind() -> None:
    from amqpworker.broker.io_thread import RUNNING
    from amqpworker.client.producer import PUBLISHERS

    before = len(RUNNING.all()), len(PUBLISHERS.all())
    for _ in range(20):
        app = App("amqp://127.0.0.1:1/")
        app.producer.publisher.start()
        del app
    gc.collect()
    wait_until(lambda: gc.collect() >= 0 and (len(RUNNING.all()), len(PUBLISHERS.all())) <= before)


def test_each_failure_doubles_the_backoff_up_to_its_longest() -> None:
    assert [backoff(0.5, 3.0, failures) for failures in range(6)] == [0.0, 0.5, 1.0, 2.0, 3.0, 3.0]
    assert backoff(0.5, 3.0, 1_000_000) == 3.0
