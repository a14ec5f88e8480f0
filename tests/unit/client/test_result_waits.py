"""Waiting for stored results: in threads, coroutines and groups, over a SQLite file that other stores write to."""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from amqpworker import App, ConfigError, ResultStoreError, ResultTimeout, Sent, TaskFailed, as_completed, gather
from amqpworker.client import result_reader, result_waits
from amqpworker.client.result_waits import ResultWaits, WantedResult
from amqpworker.client.sent import Origin
from amqpworker.client.stored_results import StoredResults
from amqpworker.model.headers import time_text
from amqpworker.model.outcome import Failure
from amqpworker.model.progress import Progress, encode_progress
from amqpworker.model.reply import encode_done, encode_failed
from amqpworker.results.row import ResultRow
from amqpworker.results.sqlite import SqliteStore
from amqpworker.results.sqlite_subscription import SqliteSubscription
from amqpworker.results.store import RowsNotReadable
from amqpworker.text import cut
from tests.support import wait_until

LATER = 4_000_000_000.0
NEVER = 0.05
PATIENCE = 30.0


def row(task_id: str, value: object = 1, **fields: Any) -> ResultRow:
    return ResultRow(task_id, "done", "shop.add", encode_done(str(value).encode()), "", 1.5, LATER)._replace(**fields)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.db"


@pytest.fixture
def writer(path: Path) -> Iterator[SqliteStore]:
    """Return the store of another process, as it were."""
    store = SqliteStore(path, "shop")
    yield store
    store.close()


@pytest.fixture
def results(path: Path) -> Iterator[StoredResults]:
    results = StoredResults(SqliteStore(path, "shop"))
    yield results
    results.close()


def sent(results: StoredResults, task_id: str) -> Sent[int]:
    return Sent[int](task_id, "shop.add", Origin(lambda: results, int))


def threads_that_wait() -> int:
    return sum(thread.name == "amqpworker-results" for thread in threading.enumerate())


# ---- threads


def test_a_result_that_is_there_needs_no_thread(results: StoredResults, writer: SqliteStore) -> None:
    writer.put([row("a")])
    assert sent(results, "a").result(timeout=0) == 1
    assert threads_that_wait() == 0


def test_a_thousand_waits_share_one_thread_and_each_gets_its_result(
    results: StoredResults, writer: SqliteStore
) -> None:
    ids = [f"id-{number}" for number in range(1000)]
    with ThreadPoolExecutor(100) as pool:
        waits = [pool.submit(sent(results, one).result, PATIENCE) for one in ids]
        wait_until(lambda: threads_that_wait() == 1, PATIENCE, "they wait")
        for start in range(0, 1000, 50):
            writer.put([row(one, number) for number, one in enumerate(ids[start : start + 50], start)])
        assert [wait.result() for wait in waits] == list(range(1000))
    results.close()
    wait_until(lambda: threads_that_wait() == 0, PATIENCE, "the thread has ended")


def test_a_wait_ends_with_its_timeout_and_leaves_nothing(results: StoredResults) -> None:
    with pytest.raises(ResultTimeout, match=r"No result of task 'shop.add' within 0.05 s \(id a\)"):
        sent(results, "a").result(timeout=NEVER)
    with pytest.raises(ResultTimeout):
        sent(results, "a").result(timeout=0)
    assert not results._waits._open


def test_the_result_of_another_message_with_the_same_id_does_not_end_a_wait(
    results: StoredResults, writer: SqliteStore
) -> None:
    first, second = (Sent[int]("a", "shop.add", Origin(lambda: results, int), number) for number in (1000, 2000))
    with ThreadPoolExecutor() as pool:
        wait = pool.submit(second.result, PATIENCE)
        writer.put([row("a", 1, first_sent="1970-01-01T00:00:01.000Z")])
        assert first.result(PATIENCE) == 1
        assert not wait.done()
        writer.put([row("a", 2, first_sent="1970-01-01T00:00:02.000Z")])
        assert wait.result() == 2


def test_a_row_of_a_task_that_runs_does_not_end_a_wait(results: StoredResults, writer: SqliteStore) -> None:
    with ThreadPoolExecutor() as pool:
        wait = pool.submit(sent(results, "a").result, PATIENCE)
        writer.put([row("a", reply=b"", state="running")])
        wait_until(lambda: sent(results, "a").status().state == "running", what="the row is there")
        assert not wait.done()
        writer.put([row("a", 3)])
        assert wait.result() == 3


class Silent(SqliteSubscription):
    """A subscription that reports nothing after it has connected."""

    def wait(self, timeout: float) -> Collection[str] | None:
        self._woken.wait(timeout)
        self._woken.clear()
        return ()


class Broken(Silent):
    def wait(self, _: float) -> Collection[str] | None:
        raise ResultStoreError("no one listens")


@pytest.mark.parametrize("kind", [Silent, Broken])
def test_a_result_is_found_by_polling_if_the_store_reports_nothing(
    kind: type[Silent], path: Path, writer: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Silent, "poll_every", 0.01)
    monkeypatch.setattr(result_reader, "POLL_WITHOUT_HINTS", 0.01)
    store = SqliteStore(path, "shop")
    store.subscribe = lambda: kind(path, "shop")  # type: ignore[method-assign]
    results = StoredResults(store)
    with ThreadPoolExecutor() as pool:
        wait = pool.submit(sent(results, "a").result, PATIENCE)
        wait_until(lambda: threads_that_wait() == 1, what="it waits")
        writer.put([row("a")])
        assert wait.result() == 1
    results.close()


class Failing:
    """Makes the store of some results fail with an error, once `fails` is set."""

    def __init__(self, results: StoredResults, error: Exception) -> None:
        self.fails = threading.Event()
        self.asked = 0
        self._read, self._error = results.store.get, error
        results.store.get = self.get  # type: ignore[method-assign]

    def get(self, ids: Collection[str]) -> Mapping[str, ResultRow]:
        if self.fails.is_set():
            self.asked += 1
            raise self._error
        return self._read(ids)


def test_a_store_that_fails_for_a_while_is_read_again(
    results: StoredResults, writer: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(result_reader, "RETRY_AFTER", 0.01)
    store = Failing(results, ResultStoreError("the disk is gone"))
    store.fails.set()
    with ThreadPoolExecutor() as pool:
        waits = [pool.submit(sent(results, one).result, PATIENCE) for one in ("a", "a", "b")]
        writer.put([row("a"), row("b")])
        wait_until(lambda: store.asked > 5, what="it has failed several times")
        store.fails.clear()
        assert [wait.result() for wait in waits] == [1, 1, 1]
        assert gather([sent(results, "a")]) == [1]


def test_a_store_that_fails_until_the_time_is_over_is_the_error(results: StoredResults) -> None:
    store = Failing(results, ResultStoreError("the disk is gone"))
    store.fails.set()
    for timeout in (0, NEVER):
        with pytest.raises(ResultStoreError, match="the disk is gone"):
            sent(results, "a").result(timeout)
        with pytest.raises(ResultStoreError, match="the disk is gone"):
            asyncio.run(sent(results, "a").aresult(timeout))
    with pytest.raises(ResultStoreError, match="the disk is gone"):
        gather([sent(results, "a")], timeout=NEVER)


@pytest.mark.parametrize("error", [ConfigError("no such database"), ValueError("a defect of the store")])
def test_an_error_of_the_store_that_will_not_pass_ends_its_waits(results: StoredResults, error: Exception) -> None:
    store = Failing(results, error)
    with ThreadPoolExecutor() as pool:
        waits = [pool.submit(sent(results, one).result, PATIENCE) for one in ("a", "b")]
        wait_until(lambda: [one.is_read for one in list(results._waits._open)] == [True] * 2, what="they wait")
        store.fails.set()
        results._waits.add(WantedResult("a"), lambda _: None)
        writer = SqliteStore(results.store.path, "shop")  # type: ignore[attr-defined]
        writer.put([row("a"), row("b")])
        for wait in waits:
            with pytest.raises(type(error), match=str(error)):
                wait.result()
        writer.close()


def test_a_store_that_does_not_answer_keeps_no_caller_for_longer_than_its_timeout(
    results: StoredResults, writer: SqliteStore
) -> None:
    answers, read = threading.Event(), results.store.get
    results.store.get = lambda ids: read(ids) if answers.wait(PATIENCE) else {}  # type: ignore[method-assign]
    writer.put([row("a")])
    began = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        waits = [pool.submit(sent(results, "a").result, timeout=timeout) for timeout in (0.05, 0.1, 1.1)]
        for wait in waits:
            with pytest.raises(ResultTimeout):
                wait.result()
    assert time.monotonic() - began < PATIENCE / 2
    answers.set()
    assert sent(results, "a").result() == 1


def test_a_result_that_is_there_is_found_however_short_the_timeout(results: StoredResults, writer: SqliteStore) -> None:
    writer.put([row("a"), row("b", 2)])
    both = [sent(results, one) for one in ("a", "b")]
    read = results.store.get

    def get(ids: Collection[str]) -> Mapping[str, ResultRow]:
        threading.Event().wait(0.05)
        return read(ids)

    results.store.get = get  # type: ignore[method-assign]
    for timeout in (0, 1e-9):
        assert both[0].result(timeout=timeout) == 1
        assert asyncio.run(both[0].aresult(timeout=timeout)) == 1
        assert gather(both, timeout=timeout) == [1, 2]
        assert set(as_completed(both, timeout=timeout)) == set(both)


def test_waits_end_with_an_error_if_nothing_can_report_changes_and_the_next_ones_work(
    results: StoredResults, writer: SqliteStore
) -> None:
    subscribe = results.store.subscribe

    def fail() -> Any:
        raise OSError(24, "Too many open files")

    results.store.subscribe = fail  # type: ignore[method-assign]
    with pytest.raises(ResultStoreError, match=r"cannot be waited for: .*Too many open files"):
        sent(results, "a").result(PATIENCE)
    results.store.subscribe = subscribe  # type: ignore[method-assign]
    writer.put([row("a")])
    assert gather([sent(results, "a")], timeout=PATIENCE) == [1]
    assert not results._waits._open


def test_a_row_that_cannot_be_read_keeps_no_other_wait_from_its_row(
    results: StoredResults, writer: SqliteStore
) -> None:
    read = results.store.get

    def get(ids: Collection[str]) -> Mapping[str, ResultRow]:
        if "bad" in ids:
            raise RowsNotReadable("row bad is of a later version", ["bad"], read(set(ids) - {"bad"}))
        return read(ids)

    results.store.get = get  # type: ignore[method-assign]
    writer.put([row("a"), row("bad")])
    completed = as_completed([sent(results, one) for one in ("bad", "a")], timeout=1.1)
    assert next(completed).id == "a"
    with pytest.raises(ResultStoreError, match="row bad is of a later version"):
        next(completed)


def test_rows_that_take_too_long_together_are_read_in_smaller_portions(
    results: StoredResults, writer: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(result_reader, "RETRY_AFTER", 0.01)
    read, asked = results.store.get, list[int]()

    def get(ids: Collection[str]) -> Mapping[str, ResultRow]:
        asked.append(len(ids))
        if len(ids) > 7:
            raise ResultStoreError("canceled by statement_timeout")
        return read(ids)

    results.store.get = get  # type: ignore[method-assign]
    writer.put([row(f"{number}", number) for number in range(100)])
    assert gather([sent(results, f"{number}") for number in range(100)], timeout=PATIENCE) == list(range(100))
    assert len(asked) < 100, "not one by one"


def test_the_thread_ends_some_time_after_the_last_wait_and_starts_again(
    path: Path, writer: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(result_waits, "IDLE_TIMEOUT", 0.02)
    monkeypatch.setattr(SqliteSubscription, "poll_every", 0.05)
    results = StoredResults(SqliteStore(path, "shop"))
    for number in range(3):
        with pytest.raises(ResultTimeout):
            sent(results, f"{number}").result(timeout=0.01)
        wait_until(lambda: threads_that_wait() == 0, PATIENCE, "the thread has ended")
    with ThreadPoolExecutor() as pool:
        wait = pool.submit(sent(results, "a").result, PATIENCE)
        writer.put([row("a")])
        assert wait.result() == 1
    results.close()


def test_waits_that_begin_while_the_thread_ends_are_not_forgotten(
    path: Path, writer: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(result_waits, "IDLE_TIMEOUT", 0.0)
    waits = ResultWaits(SqliteStore(path, "shop"))
    writer.put([row("a")])
    for _ in range(300):
        ended = threading.Event()
        waits.add(WantedResult("a"), lambda _: ended.set())  # noqa: B023 - called before the next turn
        assert ended.wait(PATIENCE)
    waits.close()


def test_a_forked_child_waits_with_a_thread_of_its_own(results: StoredResults, writer: SqliteStore) -> None:
    with ThreadPoolExecutor() as pool:
        wait = pool.submit(sent(results, "a").result, PATIENCE)
        wait_until(lambda: threads_that_wait() == 1, what="it waits")
        child = os.fork()
        if child == 0:
            code = 1
            try:
                signal.alarm(20)
                code = 0 if sent(results, "b").result(PATIENCE) == 2 else 1
            finally:
                os._exit(code)
        writer.put([row("a", 1), row("b", 2)])
        assert wait.result() == 1
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_threads_of_a_forked_child_that_wait_at_once_all_get_their_results(
    results: StoredResults, writer: SqliteStore
) -> None:
    writer.put([row(f"{number}", number) for number in range(8)])
    assert sent(results, "0").result() == 0
    begin = threading.Barrier(8)

    def wait(number: int) -> int:
        begin.wait()
        return sent(results, f"{number}").result(PATIENCE)

    for _ in range(20):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                signal.alarm(20)
                sys.setswitchinterval(1e-6)
                with ThreadPoolExecutor(8) as pool:
                    code = 0 if list(pool.map(wait, range(8))) == list(range(8)) else 1
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# ---- coroutines


def test_a_hundred_coroutines_await_their_results(results: StoredResults, writer: SqliteStore) -> None:
    async def wait() -> None:
        waits = [asyncio.ensure_future(sent(results, f"{number}").aresult(PATIENCE)) for number in range(100)]
        await asyncio.sleep(0)
        writer.put([row(f"{number}", number) for number in range(100)])
        assert await asyncio.gather(*waits) == list(range(100))
        assert (await sent(results, "7").astatus()).state == "done"

    asyncio.run(wait())


def test_an_awaited_result_ends_with_its_timeout_or_its_cancel_and_leaves_nothing(results: StoredResults) -> None:
    async def wait() -> None:
        for timeout in (0, NEVER):
            with pytest.raises(ResultTimeout):
                await sent(results, "a").aresult(timeout)
        waiting = asyncio.ensure_future(sent(results, "a").aresult(PATIENCE))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(wait())
    assert not results._waits._open


# ---- groups


def test_results_are_yielded_as_they_end_and_gathered_in_order(results: StoredResults, writer: SqliteStore) -> None:
    sents = [sent(results, one) for one in ("a", "b", "c", "a")]
    writer.put([row("b", 2)])
    completed = as_completed(sents, timeout=PATIENCE)
    assert next(completed) == sents[1]
    writer.put([row("a", 1)])
    assert [next(completed), next(completed)] == [sents[0], sents[3]]
    writer.put([row("c", 3)])
    assert next(completed) == sents[2]
    assert list(completed) == []
    assert gather(sents) == [1, 2, 3, 1]
    assert gather([]) == list(as_completed([])) == []


def test_messages_of_two_apps_with_one_id_have_results_of_their_own(
    results: StoredResults, writer: SqliteStore, path: Path
) -> None:
    bank = StoredResults(SqliteStore(path, "bank"))
    writer.put([row("a", 1)])
    bank.store.put([row("a", 2)])
    assert gather([sent(results, "a"), sent(bank, "a")]) == [1, 2]
    bank.close()


def test_the_first_failure_ends_a_gathering_unless_failures_are_values(
    results: StoredResults, writer: SqliteStore
) -> None:
    failed = encode_failed("failed", Failure("ValueError", "no"))
    writer.put([row("b", reply=failed, state="failed")])
    sents = [sent(results, one) for one in ("a", "b")]
    with pytest.raises(TaskFailed, match="no"):
        gather(sents, timeout=PATIENCE)
    writer.put([row("a")])
    one, error = gather(sents, return_exceptions=True)
    assert one == 1
    assert isinstance(error, TaskFailed)


def test_a_group_ends_with_its_timeout_and_reports_how_many_are_left(
    results: StoredResults, writer: SqliteStore
) -> None:
    writer.put([row("a")])
    with pytest.raises(ResultTimeout, match=r"^2 of 3 tasks have not ended within 0\.05 s\.$"):
        list(as_completed([sent(results, one) for one in "abc"], timeout=NEVER))
    assert not results._waits._open


# ---- status, and results by their id


def test_a_status_has_what_is_known_of_the_run(results: StoredResults, writer: SqliteStore) -> None:
    assert sent(results, "a").status().state == "pending"
    progress = Progress(3, 10, "third of ten")
    writer.put(
        [
            row(
                "a",
                reply=b"",
                state="running",
                attempt=2,
                worker="shop@host",
                started_at=1_800_000_000.5,
                stored_at=1_800_000_001.0,
                first_sent="2026-11-30T10:00:00.000Z",
                progress=encode_progress(progress),
            )
        ]
    )
    status = sent(results, "a").status()
    assert (status.state, status.attempt, status.worker) == ("running", 2, "shop@host")
    assert (status.sent_at, status.started_at, status.stored_at) == tuple(
        map(_utc, ("2026-11-30T10:00:00", "2027-01-15T08:00:00.500000", "2027-01-15T08:00:01"))
    )
    assert status.progress == progress
    assert progress.fraction == 0.3


def _utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b'{"done":"1"}', b'{"done":true}', b'{"done":1,"note":2}'])
def test_a_progress_that_is_not_understood_is_none(results: StoredResults, writer: SqliteStore, data: bytes) -> None:
    writer.put([row("a", progress=data)])
    assert sent(results, "a").status().progress is None


def test_a_note_of_a_progress_has_a_bound() -> None:
    assert len(encode_progress(Progress(1, None, "x" * 10**6))) < 1100
    assert cut("x" * 10, 3) == "xxx…"


@pytest.fixture
def shop(path: Path) -> Iterator[App]:
    app = App("amqp://127.0.0.1:1/", results=f"sqlite:///{path}", namespace="shop")

    @app.task(name="shop.add")
    def add(left: int) -> tuple[int, str]: ...  # type: ignore[empty-body]

    module = ModuleType("shopmodule")
    module.add = add  # type: ignore[attr-defined]
    add.__module__, add.__qualname__ = "shopmodule", "add"
    sys.modules["shopmodule"] = module
    yield app
    del sys.modules["shopmodule"]
    app.close()


def test_a_result_is_found_by_its_id_alone_in_the_type_of_its_task(shop: App, writer: SqliteStore) -> None:
    writer.put([row("a", '[1,"x"]'), row("b", '[1,"x"]', task="shop.gone")])
    assert shop.result("a") == (1, "x")
    assert asyncio.run(shop.aresult("a", timeout=5)) == (1, "x")
    assert shop.result("b") == [1, "x"], "of a task that this app does not know"
    with pytest.raises(ResultTimeout, match=r"^No result of a message with id c within 0 s\.$"):
        shop.result("c", timeout=0)
    with pytest.raises(ConfigError, match="stores no results"):
        App("amqp://127.0.0.1:1/").result("a")


def test_a_sent_message_that_was_pickled_finds_its_app_by_the_place_of_its_task(shop: App, writer: SqliteStore) -> None:
    sent = Sent[Any]("a", "shop.add", shop.origin("shop.add"), 1000)
    writer.put([row("a", '[1,"x"]')])
    pickled = pickle.dumps(sent)
    assert b"sqlite" not in pickled, "no URL, which may have a password"
    assert pickle.loads(pickled).result() == (1, "x")
    assert copy.copy(sent) is copy.deepcopy(sent) is sent
    del sys.modules["shopmodule"].add
    lost = pickle.loads(pickled)
    with pytest.raises(ConfigError, match=r"not at the top level of a module .* app\.result\(id\)"):
        lost.result()
    with pytest.raises(ConfigError, match=r"app\.pending\.cancel\('a'\)"):
        pickle.loads(pickle.dumps(sent)).cancel()


def test_the_result_of_a_task_that_dedupes_may_be_that_of_another_message_which_is_done() -> None:
    done = ResultRow("a", "done", "shop.add", b"1", time_text(1000), 1.0, 4e9)
    assert WantedResult("a", 2000, or_done=True).is_of(done, 5.0)
    assert not WantedResult("a", 2000).is_of(done, 5.0)
    assert not WantedResult("a", 2000, or_done=True).is_of(done._replace(state="failed"), 5.0)
    assert not WantedResult("a", 2000, or_done=True).is_of(done, 5e9)
