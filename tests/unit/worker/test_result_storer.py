"""The thread that stores results: what one commit has, what is tried again, and when nothing new is started."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from amqpworker.errors import ConfigError, ResultStoreError
from amqpworker.model.clock import Clock
from amqpworker.results.expiry import EXPIRE_AFTER
from amqpworker.results.row import ResultRow
from amqpworker.results.store import ResultNotStorable, RowsNotReadable
from amqpworker.worker.result_storer import MOST_AT_ONCE, ResultStorer, StoredRow
from tests.support import wait_until
from tests.unit.worker.settling import Store


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.now, lambda: self.now)


class Scene:
    def __init__(self, store: Any = None) -> None:
        self.time = Time()
        self.store: Any = store or Store()
        self.down: list[bool] = []
        self.storer = ResultStorer(self.store, self.time.clock, self.down.append)
        self.ended: list[tuple[str, ResultStoreError | None]] = []
        self.is_wanted = True

    def put(self, task_id: str, replaces: bool = True, **fields: Any) -> None:
        row = ResultRow(task_id, "done", "example", b"1", "", 1.0, 4e9)._replace(**fields)
        wanted = lambda: self.is_wanted  # noqa: E731
        self.storer.put(StoredRow(row, lambda error: self.ended.append((task_id, error)), wanted, replaces))


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_one_commit_has_all_that_has_gathered_and_what_follows_it_comes_in_order(scene: Scene) -> None:
    puts: list[int] = []
    put = scene.store.put
    scene.store.put = lambda rows: puts.append(len(rows)) or put(rows)
    for number in range(MOST_AT_ONCE + 5):
        scene.put(f"id-{number}")
    assert not scene.storer.is_idle
    assert scene.storer.store_waiting() is None
    assert scene.storer.store_waiting() is None
    assert puts == [MOST_AT_ONCE, 5]
    assert scene.ended == [(f"id-{number}", None) for number in range(MOST_AT_ONCE + 5)]
    assert scene.storer.is_idle


def test_what_could_not_be_stored_is_tried_again_before_what_came_later(scene: Scene) -> None:
    scene.store.failures = 2
    scene.put("a")
    pauses = [scene.storer.store_waiting()]
    scene.put("b")
    pauses.append(scene.storer.store_waiting())
    assert scene.ended == []
    assert scene.storer.store_waiting() is None
    assert scene.ended == [("a", None), ("b", None)]
    assert all(pause is not None and 0.05 <= pause <= 0.2 for pause in pauses)


def test_a_row_that_can_never_be_stored_is_reported_and_the_others_of_its_commit_are_stored(scene: Scene) -> None:
    error, put = ResultNotStorable("too large"), scene.store.put

    def put_most(rows: Sequence[ResultRow]) -> Mapping[str, ResultStoreError]:
        put([row for row in rows if row.id != "b"])
        return {row.id: error for row in rows if row.id == "b"}

    scene.store.put = put_most
    for task_id in "abc":
        scene.put(task_id)
    assert scene.storer.store_waiting() is None
    assert scene.ended == [("a", None), ("b", error), ("c", None)]


@pytest.mark.parametrize("raised", [ConfigError("no such table"), ValueError("a defect of the store")])
def test_a_store_that_raises_is_one_that_fails(scene: Scene, raised: Exception) -> None:
    def fail(_: object) -> Mapping[str, ResultStoreError]:
        raise raised

    scene.store.put = fail
    scene.put("a")
    assert scene.storer.store_waiting() is not None
    scene.storer.drain()
    scene.storer.store_waiting()
    ((_, error),) = scene.ended
    assert str(raised) in str(error)


def test_a_defect_in_what_follows_one_row_does_not_keep_others_from_it(scene: Scene) -> None:
    def fail(_: object) -> None:
        raise KeyboardInterrupt

    row = ResultRow("a", "done", "example", b"1", "", 1.0, 4e9)
    scene.storer.put(StoredRow(row, fail, lambda: True))
    scene.put("b")
    assert scene.storer.store_waiting() is None
    assert scene.ended == [("b", None)]


def test_nothing_is_tried_again_for_a_message_that_is_redelivered_or_once_the_worker_drains(scene: Scene) -> None:
    scene.store.failures = 100
    scene.is_wanted = False
    scene.put("a")
    assert scene.storer.store_waiting() is None
    scene.is_wanted = True
    scene.put("b")
    assert scene.storer.store_waiting() is not None
    scene.storer.drain()
    assert scene.storer.store_waiting() is None
    assert [task_id for task_id, error in scene.ended if error] == ["a", "b"]


def test_a_reply_that_is_stored_already_stays_if_the_row_is_not_to_replace_it(scene: Scene) -> None:
    scene.put("a", reply=b"first")
    scene.storer.store_waiting()
    scene.put("a", replaces=False, reply=b"second")
    scene.put("b", replaces=False, reply=b"second")
    scene.storer.store_waiting()
    assert (scene.store.rows["a"].reply, scene.store.rows["b"].reply) == (b"first", b"second")
    assert scene.ended[1:] == [("a", None), ("b", None)]


def test_a_store_is_down_a_second_after_its_first_failed_commit_until_it_works(scene: Scene) -> None:
    scene.store.failures = 6
    scene.put("a")
    for seconds in (0.0, 0.5):
        scene.time.now += seconds
        scene.storer.store_waiting()
        assert (scene.storer.problem, scene.down) == (None, [])
    for seconds in (0.6, 60.0):
        scene.time.now += seconds
        scene.storer.store_waiting()
        assert (scene.storer.problem, scene.down) == ("the disk is full", [True])
    scene.storer.store_waiting()
    assert (scene.storer.problem, scene.down) == (None, [True, False])


class Picky(Store):
    """A store that works, and cannot store some rows."""

    def __init__(self, *refused: str) -> None:
        super().__init__()
        self.refused = {*refused}

    def put(self, rows: Sequence[ResultRow]) -> Mapping[str, ResultStoreError]:
        super().put([one for one in rows if one.id not in self.refused])
        return {one.id: ResultStoreError("canceled by statement_timeout") for one in rows if one.id in self.refused}


def test_a_row_that_cannot_be_stored_while_the_store_works_holds_up_no_other() -> None:
    scene = Scene(Picky("bad"))
    for turn in range(300):
        scene.time.now += 0.5
        scene.put(f"id-{turn}")
        if turn == 2:
            scene.put("bad")
        while not scene.storer.is_idle and f"id-{turn}" not in scene.store.rows:
            assert scene.storer.store_waiting() is None, "no other waits for it"
    assert (len(scene.ended), scene.down, scene.storer.problem) == (300, [], None)
    assert not scene.storer.is_idle, "its message is not acknowledged"
    scene.store.refused.clear()
    scene.time.now += 60.0
    assert scene.storer.store_waiting() is None
    assert scene.ended[-1] == ("bad", None)
    assert scene.storer.is_idle


def test_the_only_row_is_found_to_be_at_fault_and_is_requeued_once_the_worker_drains() -> None:
    scene = Scene(Picky("bad"))
    scene.put("bad")
    for _ in range(20):
        scene.time.now += 0.4
        scene.storer.store_waiting()
    assert (scene.down, scene.storer.problem, scene.ended) == ([], None, [])
    scene.storer.drain()
    assert scene.storer.store_waiting() is None
    ((_, error),) = scene.ended
    assert "statement_timeout" in str(error)
    assert scene.storer.is_idle


def test_rows_that_failed_together_with_one_at_fault_are_stored_alone() -> None:
    scene = Scene()
    put = scene.store.put

    def fail_together(rows: Sequence[ResultRow]) -> Mapping[str, ResultStoreError]:
        bad = any(one.id == "bad" for one in rows)
        return {one.id: ResultStoreError("it did not answer") for one in rows} if bad else put(rows)

    scene.store.put = fail_together
    for task_id in ("a", "bad", "b"):
        scene.put(task_id)
    for _ in range(20):
        scene.time.now += 0.4
        scene.storer.store_waiting()
    assert (sorted(scene.ended), scene.down) == ([("a", None), ("b", None)], [])


def test_expired_rows_are_deleted_as_new_ones_are_stored(scene: Scene) -> None:
    asked: list[int] = []
    scene.store.expire = lambda _, most: asked.append(most) or 0
    scene.put("first")
    scene.storer.store_waiting()
    scene.time.now += 1
    for number in range(EXPIRE_AFTER + 1):
        scene.put(f"{number}")
        scene.storer.store_waiting()
    assert asked == [2 * (EXPIRE_AFTER + 1)] * 2


@pytest.fixture
def running() -> Iterator[Scene]:
    scene = Scene()
    scene.storer = ResultStorer(scene.store)
    scene.storer.start()
    yield scene
    scene.storer.drain()
    scene.storer.stop()


def test_its_thread_stores_what_is_put_and_waits_for_more(running: Scene) -> None:
    for task_id in "abc":
        running.put(task_id)
        wait_until(lambda: running.storer.is_idle, what="it is stored")
    running.store.failures = 3
    running.put("d")
    wait_until(lambda: running.ended[-1] == ("d", None), what="it is stored at last")


def test_a_drain_ends_the_pause_after_a_failure(running: Scene) -> None:
    running.store.failures = 10**6
    running.put("a")
    wait_until(lambda: running.store.failures < 10**6 - 3, what="it has failed several times")
    running.storer.drain()
    wait_until(lambda: bool(running.ended), what="it is given to the caller")
    running.storer.stop()
    wait_until(lambda: all(one.name != "amqpworker-storing" for one in threading.enumerate()), what="it has ended")


def test_a_row_that_cannot_be_read_keeps_no_other_of_its_commit_from_being_stored(scene: Scene) -> None:
    def get(_: Any) -> Mapping[str, ResultRow]:
        raise RowsNotReadable("row a is of a later version", ["a"], {})

    scene.store.get = get
    scene.put("a", replaces=False)
    scene.put("b")
    assert scene.storer.store_waiting() is None
    assert scene.ended == [("a", None), ("b", None)]
