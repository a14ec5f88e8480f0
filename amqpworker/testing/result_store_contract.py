"""
What every result store must do, as tests: a store of another package runs them, too (docs/results.md).

They need pytest, which collects them; nothing is imported from it here.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from amqpworker.results.store import ResultRow, ResultStore

FAR_FUTURE = 4_000_000_000.0
MONDAY, TUESDAY = "2026-11-23T10:00:00.000Z", "2026-11-24T10:00:00.000Z"


def _row(task_id: str, reply: bytes = b"1", first_sent: str = MONDAY, expires_at: float = FAR_FUTURE) -> ResultRow:
    """Return a row that has not expired."""
    return ResultRow(task_id, "done", "shop.task", reply, first_sent, 1_800_000_000.25, expires_at)


class ResultStoreContract:
    """
    The tests of a store: derive `class TestMyStore(ResultStoreContract)` and define `open_store`.

    The stores that one test opens share their rows. No test may see rows of another test.
    """

    def open_store(self) -> ResultStore:
        """Create a store."""
        raise NotImplementedError

    def test_a_row_is_returned_as_it_was_put(self) -> None:
        with closing(self.open_store()) as store:
            assert store.put([_row("a")]) == {}
            assert store.get(["a"]) == {"a": _row("a")}

    def test_an_id_without_a_row_is_left_out(self) -> None:
        with closing(self.open_store()) as store:
            assert store.get(["never"]) == {}
            store.put([_row("a")])
            assert set(store.get(["a", "never"])) == {"a"}

    def test_nothing_to_do_is_not_an_error(self) -> None:
        with closing(self.open_store()) as store:
            assert store.put([]) == {}
            assert store.get([]) == {}
            store.delete([])

    def test_a_batch_is_stored_as_a_whole(self) -> None:
        """It may be as large as the prefetch of a worker."""
        rows = {f"id-{number}": _row(f"id-{number}", b"%d" % number) for number in range(1000)}
        with closing(self.open_store()) as store:
            assert store.put(list(rows.values())) == {}
            assert store.get(rows) == rows

    def test_a_row_replaces_that_of_the_same_message(self) -> None:
        """A task that was redelivered stores its result again, with a new expiry."""
        with closing(self.open_store()) as store:
            store.put([_row("a", b"1", expires_at=FAR_FUTURE - 1)])
            store.put([_row("a", b"2")])
            assert store.get(["a"]) == {"a": _row("a", b"2")}

    def test_of_two_rows_of_a_message_in_one_batch_the_last_counts(self) -> None:
        """Databases that refuse a batch with an id twice need care."""
        with closing(self.open_store()) as store:
            assert store.put([_row("a", b"1"), _row("b"), _row("a", b"2")]) == {}
            assert store.get(["a", "b"]) == {"a": _row("a", b"2"), "b": _row("b")}

    def test_of_two_messages_with_one_id_the_one_that_was_sent_last_counts(self) -> None:
        """An earlier message that is redelivered must not hide the result of the later one."""
        earlier, later = _row("a", b"1", MONDAY), _row("a", b"2", TUESDAY)
        with closing(self.open_store()) as store:
            store.put([earlier])
            store.put([later])
            assert store.get(["a"]) == {"a": later}
            assert store.put([earlier]) == {}, "it is not an error"
            assert store.get(["a"]) == {"a": later}
            store.put([_row("b", b"2", TUESDAY), _row("b", b"1", MONDAY)])
            assert store.get(["b"]) == {"b": _row("b", b"2", TUESDAY)}

    def test_a_message_without_a_first_sending_counts_as_the_earliest(self) -> None:
        with closing(self.open_store()) as store:
            store.put([_row("a", b"1", "")])
            assert store.get(["a"]) == {"a": _row("a", b"1", "")}
            store.put([_row("a", b"2", MONDAY)])
            store.put([_row("a", b"3", "")])
            assert store.get(["a"]) == {"a": _row("a", b"2", MONDAY)}

    def test_ids_are_opaque(self) -> None:
        ids = ["", "a b/ü?*%'\";--", "x\0y", "\ud800", "{a}:b", "A", "a", "x" * 10_000]
        with closing(self.open_store()) as store:
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
        with closing(self.open_store()) as store:
            assert store.put(list(rows.values())) == {}
            assert store.get(rows) == rows

    def test_a_reply_is_opaque(self) -> None:
        rows = {
            str(number): _row(str(number), reply) for number, reply in enumerate([b"", b"\0\xff", b"x" * 3_000_000])
        }
        with closing(self.open_store()) as store:
            assert store.put(list(rows.values())) == {}
            assert store.get(rows) == rows

    def test_expired_rows_are_deleted_at_most_n_at_a_time(self) -> None:
        with closing(self.open_store()) as store:
            store.put([_row(f"old-{number}", expires_at=1000.0) for number in range(5)])
            store.put([_row("new")])
            while deleted := store.expire(1000.0, 2):
                assert deleted <= 2
            assert store.get([f"old-{number}" for number in range(5)]) == {}
            assert set(store.get(["new"])) == {"new"}

    def test_a_row_that_was_put_again_keeps_its_new_expiry(self) -> None:
        with closing(self.open_store()) as store:
            store.put([_row("a", expires_at=1000.0)])
            store.put([_row("a")])
            assert store.expire(1001.0, 10) == 0
            assert store.get(["a"]) == {"a": _row("a")}

    def test_deleting_removes_all_rows_of_an_id_and_no_others(self) -> None:
        with closing(self.open_store()) as store:
            store.put([_row("a", b"1", MONDAY), _row("a", b"2", TUESDAY), _row("b"), _row("c")])
            store.delete(["a", "never", "c"])
            assert set(store.get(["a", "b", "c"])) == {"b"}

    def test_checking_that_rows_can_be_stored_leaves_none(self) -> None:
        with closing(self.open_store()) as store:
            assert store.check_writable() is None
            assert store.get([""]) == {}

    def test_a_closed_store_can_still_be_used(self) -> None:
        """A thread may need a result even now."""
        with closing(self.open_store()) as store:
            store.put([_row("a")])
            store.close()
            store.close()
            assert set(store.get(["a"])) == {"a"}
            store.close()
            assert store.put([_row("b")]) == {}
            assert set(store.get(["a", "b"])) == {"a", "b"}

    def test_stores_of_one_url_share_their_rows(self) -> None:
        with closing(self.open_store()) as first, closing(self.open_store()) as second:
            assert second.get(["a"]) == {}
            first.put([_row("a", b"1")])
            assert second.get(["a"]) == {"a": _row("a", b"1")}
            second.put([_row("a", b"2")])
            assert first.get(["a"]) == {"a": _row("a", b"2")}

    def test_many_threads_use_one_store(self) -> None:
        with closing(self.open_store()) as store:

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
        with closing(self.open_store()) as store:

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
