"""
What every result store must do, as tests: a store of another package runs them, too (docs/results.md).

They need pytest, which collects them; nothing is imported from it here.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from amqpworker.results.row import ResultRow
from amqpworker.results.store import ResultStore, Subscription

FAR_FUTURE = 4_000_000_000.0
MONDAY, TUESDAY = "2026-11-23T10:00:00.000Z", "2026-11-24T10:00:00.000Z"


def _row(task_id: str, reply: bytes = b"1", first_sent: str = MONDAY, expires_at: float = FAR_FUTURE) -> ResultRow:
    """Return a row that has not expired."""
    return ResultRow(task_id, "done", "shop.task", reply, first_sent, 1_800_000_000.25, expires_at)


def _is_reported(subscription: Subscription, task_id: str) -> bool:
    """Return whether a change is reported, by a store that reports changes at all."""
    until = time.monotonic() + 10.0
    while subscription.poll_every >= 1 and time.monotonic() < until:
        hint = subscription.wait(until - time.monotonic())
        if hint is None or task_id in hint:
            return True
    return subscription.poll_every < 1


def _connect(subscription: Subscription) -> None:
    """Wait until a subscription is connected: `wait` returns None until then, and the ids of rows from then on."""
    until = time.monotonic() + 10.0
    while subscription.wait(0.01) is None:
        assert time.monotonic() < until, "wait() must not return None each time"


class ResultStoreContract:
    """
    The tests of a store: derive `class TestMyStore(ResultStoreContract)` and define `open_store`.

    The stores that one test opens share their rows. No test may see rows of another test.
    """

    def open_store(self, namespace: str) -> ResultStore:
        """Create a store of a namespace."""
        raise NotImplementedError

    def _store(self, namespace: str = "shop") -> ResultStore:
        return self.open_store(namespace)

    def test_a_row_is_returned_as_it_was_put(self) -> None:
        with closing(self._store()) as store:
            assert store.put([_row("a")]) == {}
            assert store.get(["a"]) == {"a": _row("a")}

    def test_an_id_without_a_row_is_left_out(self) -> None:
        with closing(self._store()) as store:
            assert store.get(["never"]) == {}
            store.put([_row("a")])
            assert set(store.get(["a", "never"])) == {"a"}

    def test_nothing_to_do_is_not_an_error(self) -> None:
        with closing(self._store()) as store:
            assert store.put([]) == {}
            assert store.get([]) == {}
            store.delete([])

    def test_a_batch_is_stored_as_a_whole(self) -> None:
        """It may be as large as the prefetch of a worker."""
        rows = {f"id-{number}": _row(f"id-{number}", b"%d" % number) for number in range(1000)}
        with closing(self._store()) as store:
            assert store.put(list(rows.values())) == {}
            assert store.get(rows) == rows

    def test_a_row_replaces_that_of_the_same_message(self) -> None:
        """A task that was redelivered stores its result again, with a new expiry."""
        with closing(self._store()) as store:
            store.put([_row("a", b"1", expires_at=FAR_FUTURE - 1)])
            store.put([_row("a", b"2")])
            assert store.get(["a"]) == {"a": _row("a", b"2")}

    def test_of_two_rows_of_a_message_in_one_batch_the_last_counts(self) -> None:
        """Databases that refuse a batch with an id twice need care."""
        with closing(self._store()) as store:
            assert store.put([_row("a", b"1"), _row("b"), _row("a", b"2")]) == {}
            assert store.get(["a", "b"]) == {"a": _row("a", b"2"), "b": _row("b")}

    def test_of_two_messages_with_one_id_the_one_that_was_sent_last_counts(self) -> None:
        """An earlier message that is redelivered must not hide the result of the later one."""
        earlier, later = _row("a", b"1", MONDAY), _row("a", b"2", TUESDAY)
        with closing(self._store()) as store:
            store.put([earlier])
            store.put([later])
            assert store.get(["a"]) == {"a": later}
            assert store.put([earlier]) == {}, "it is not an error"
            assert store.get(["a"]) == {"a": later}
            store.put([_row("b", b"2", TUESDAY), _row("b", b"1", MONDAY)])
            assert store.get(["b"]) == {"b": _row("b", b"2", TUESDAY)}

    def test_a_message_without_a_first_sending_counts_as_the_earliest(self) -> None:
        with closing(self._store()) as store:
            store.put([_row("a", b"1", "")])
            assert store.get(["a"]) == {"a": _row("a", b"1", "")}
            store.put([_row("a", b"2", MONDAY)])
            store.put([_row("a", b"3", "")])
            assert store.get(["a"]) == {"a": _row("a", b"2", MONDAY)}

    def test_ids_are_opaque(self) -> None:
        ids = ["", "a b/ü?*%'\";--", "x\0y", "\ud800", "{a}:b", "A", "a", "x" * 10_000]
        with closing(self._store()) as store:
            assert store.put([_row(task_id, str(number).encode()) for number, task_id in enumerate(ids)]) == {}
            found = store.get(ids)
            assert {task_id: row.reply for task_id, row in found.items()} == {
                task_id: str(number).encode() for number, task_id in enumerate(ids)
            }
            assert [row.id for row in found.values()] == list(found)

    def test_states_and_tasks_are_opaque(self) -> None:
        """The set of states is open, and a task that is unknown has any name."""
        rows = {
            "a": _row("a")._replace(state="from the future", task=""),
            "b": _row("b")._replace(state="running", task="x.y\0ü", reply=b""),
        }
        with closing(self._store()) as store:
            assert store.put(list(rows.values())) == {}
            assert store.get(rows) == rows

    def test_a_reply_is_opaque(self) -> None:
        rows = {
            str(number): _row(str(number), reply) for number, reply in enumerate([b"", b"\0\xff", b"x" * 3_000_000])
        }
        with closing(self._store()) as store:
            assert store.put(list(rows.values())) == {}
            assert store.get(rows) == rows

    def test_expired_rows_are_deleted_at_most_n_at_a_time(self) -> None:
        with closing(self._store()) as store:
            store.put([_row(f"old-{number}", expires_at=1000.0) for number in range(5)])
            store.put([_row("new")])
            while deleted := store.expire(1000.0, 2):
                assert deleted <= 2
            assert store.get([f"old-{number}" for number in range(5)]) == {}
            assert set(store.get(["new"])) == {"new"}

    def test_a_row_that_was_put_again_keeps_its_new_expiry(self) -> None:
        with closing(self._store()) as store:
            store.put([_row("a", expires_at=1000.0)])
            store.put([_row("a")])
            assert store.expire(1001.0, 10) == 0
            assert store.get(["a"]) == {"a": _row("a")}

    def test_deleting_removes_the_rows_of_these_ids_and_no_others(self) -> None:
        with closing(self._store()) as store:
            store.put([_row("a", b"1", MONDAY), _row("a", b"2", TUESDAY), _row("b"), _row("c")])
            store.delete(["a", "never", "c"])
            assert set(store.get(["a", "b", "c"])) == {"b"}

    def test_a_task_that_has_ended_does_not_run_again_in_its_row(self) -> None:
        """What a worker stored last may arrive first."""
        sent, running, done = (_row("a")._replace(state=state) for state in ("sent", "running", "done"))
        with closing(self._store()) as store:
            for rows in ([done], [running], [sent]):
                assert store.put(rows) == {}, "it is not an error"
                assert store.get(["a"]) == {"a": done}
            store.put([_row("b")._replace(state="running")])
            store.put([_row("b")._replace(state="sent"), done._replace(id="c"), running._replace(id="c")])
            found = store.get(["b", "c"])
            assert {task_id: row.state for task_id, row in found.items()} == {"b": "running", "c": "done"}

    def test_a_message_that_was_sent_later_begins_anew(self) -> None:
        later = _row("a", b"", TUESDAY)._replace(state="sent")
        with closing(self._store()) as store:
            store.put([_row("a", b"1", MONDAY)])
            store.put([later])
            assert store.get(["a"]) == {"a": later}

    def test_a_row_keeps_what_is_known_of_the_run(self) -> None:
        row = _row("a", b"")._replace(
            state="running", attempt=3, worker="shop:tasks@host 1/2\udc80", started_at=1_800_000_000.125, progress=b"{}"
        )
        with closing(self._store()) as store:
            store.put([row])
            (found,) = store.get(["a"]).values()
            assert found._replace(worker="") == row._replace(worker="")
            store.put([row._replace(progress=b'{"done":1}', worker="w")])
            assert (store.get(["a"])["a"].progress, store.get(["a"])["a"].worker) == (b'{"done":1}', "w")

    def test_rows_of_another_namespace_are_not_seen(self) -> None:
        with closing(self._store("shop")) as shop, closing(self._store("bank")) as bank:
            shop.put([_row("a", b"1", TUESDAY)])
            assert bank.get(["a"]) == {}
            bank.put([_row("a", b"2", MONDAY)])
            assert (shop.get(["a"])["a"].reply, bank.get(["a"])["a"].reply) == (b"1", b"2")
            bank.delete(["a"])
            assert set(shop.get(["a"])) == {"a"}

    def test_stores_that_put_the_same_ids_in_another_order_do_not_block_each_other(self) -> None:
        ids = [str(number) for number in range(100)]
        with closing(self._store()) as one, closing(self._store()) as other, ThreadPoolExecutor(2) as threads:

            def work(store: ResultStore, order: list[str]) -> None:
                for turn in range(20):
                    assert store.put([_row(task_id, b"%d" % turn) for task_id in order]) == {}

            for running in [threads.submit(work, one, ids), threads.submit(work, other, ids[::-1])]:
                running.result(60)
            assert {row.reply for row in one.get(ids).values()} == {b"19"}

    def test_a_change_by_another_store_is_reported_to_a_subscription(self) -> None:
        with (
            closing(self._store()) as store,
            closing(self._store()) as other,
            closing(store.subscribe()) as subscription,
        ):
            subscription.watch(["a", "b"])
            for task_id in ("a", "b"):
                _connect(subscription)
                other.put([_row(task_id)])
                assert _is_reported(subscription, task_id)

    def test_the_wait_of_a_subscription_ends_after_its_timeout_and_when_it_is_woken(self) -> None:
        with closing(self._store()) as store, closing(store.subscribe()) as subscription:
            _connect(subscription)
            subscription.wake()
            assert not subscription.wait(60)
            waking = threading.Timer(0.05, subscription.wake)
            waking.start()
            assert not subscription.wait(60)
            waking.join()

    def test_a_subscription_that_was_closed_can_still_be_used(self) -> None:
        with closing(self._store()) as store, closing(store.subscribe()) as subscription:
            subscription.watch(["a"])
            subscription.wait(0)
            subscription.close()
            store.put([_row("a")])
            if subscription.poll_every >= 1:
                assert subscription.wait(60) is None, "changes may have been missed"
            assert not subscription.wait(0)

    def test_checking_that_rows_can_be_stored_leaves_none(self) -> None:
        with closing(self._store()) as store:
            assert store.check_writable() is None
            assert store.get([""]) == {}

    def test_a_closed_store_can_still_be_used(self) -> None:
        """A thread may need a result even now."""
        with closing(self._store()) as store:
            store.put([_row("a")])
            store.close()
            store.close()
            assert set(store.get(["a"])) == {"a"}
            store.close()
            assert store.put([_row("b")]) == {}
            assert set(store.get(["a", "b"])) == {"a", "b"}

    def test_stores_of_one_url_share_their_rows(self) -> None:
        with closing(self._store()) as first, closing(self._store()) as second:
            assert second.get(["a"]) == {}
            first.put([_row("a", b"1")])
            assert second.get(["a"]) == {"a": _row("a", b"1")}
            second.put([_row("a", b"2")])
            assert first.get(["a"]) == {"a": _row("a", b"2")}

    def test_many_threads_use_one_store(self) -> None:
        with closing(self._store()) as store:

            def work(number: int) -> None:
                for turn in range(25):
                    mine = _row(f"{number}-{turn}", b"%d" % turn)
                    assert store.put([mine]) == {}
                    assert store.get([mine.id]) == {mine.id: mine}

            with ThreadPoolExecutor(16) as threads:
                list(threads.map(work, range(16)))
            assert len(store.get([f"{number}-{turn}" for number in range(16) for turn in range(25)])) == 400

    def test_a_store_is_closed_while_threads_use_it(self) -> None:
        """They do not fail, since it opens again."""
        ended = threading.Event()
        with closing(self._store()) as store:

            def work(name: str) -> None:
                for turn in range(20):
                    mine = _row(name, b"%d" % turn)
                    assert store.put([mine]) == {}
                    assert store.get([name]) == {name: mine}

            def close() -> None:
                while not ended.is_set():
                    store.close()

            with ThreadPoolExecutor(5) as threads:
                closes = threads.submit(close)
                try:
                    for running in [threads.submit(work, str(number)) for number in range(4)]:
                        running.result(60)
                finally:
                    ended.set()
                closes.result(10)
