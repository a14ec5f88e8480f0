"""The lines of threads that keep a connection: in order, none lost, and none that holds the thread up."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

import pytest

from amqpworker.lifecycle import in_io_thread, run_as_io_thread
from amqpworker.log import log_queue
from amqpworker.log import logger as logs
from amqpworker.log.log_queue import LogQueue
from tests.support import wait_until

log = logs.get_logger("amqpworker.tested")


class Keeps(logging.Handler):
    """Keeps what it gets; it can be held up, as by a full disk."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.go_on = threading.Event()
        self.go_on.set()

    def emit(self, record: logging.LogRecord) -> None:
        assert not in_io_thread()
        self.go_on.wait(20)
        self.records.append(record)

    def lines(self) -> list[str]:
        return [record.getMessage() for record in self.records]


@pytest.fixture
def handler() -> Iterator[Keeps]:
    handler = Keeps()
    logger = logging.getLogger("amqpworker.tested")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    handler.go_on.set()
    logs.flush()
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


def in_thread(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=run_as_io_thread, args=(work,), name="amqpworker-tested")
    thread.start()
    return thread


def test_a_handler_that_hangs_does_not_hold_up_the_thread_and_gets_all_lines_in_order(handler: Keeps) -> None:
    handler.go_on.clear()
    thread = in_thread(lambda: [log.info("line", number=number) for number in range(500)] and None)
    thread.join(20)
    assert not thread.is_alive()
    assert handler.records == []
    handler.go_on.set()
    logs.flush()
    assert handler.lines() == [f"line number={number}" for number in range(500)]


def test_a_line_shows_when_and_where_it_was_written_and_not_when_it_was_handed_on(handler: Keeps) -> None:
    handler.go_on.clear()

    def work() -> None:
        try:
            raise LookupError("told")
        except LookupError as error:
            log.error("failed", exc_info=error)

    in_thread(work).join(20)
    late = time.time()
    handler.go_on.set()
    logs.flush()
    (record,) = handler.records
    assert record.created <= late
    assert record.threadName == "amqpworker-tested"
    assert (record.funcName, record.filename) == ("work", "test_log_queue.py")
    assert record.exc_info is not None
    assert record.exc_info[0] is LookupError


def test_other_threads_write_their_lines_themselves(handler: Keeps) -> None:
    log.info("direct")
    assert handler.lines() == ["direct"]


def test_what_pika_logs_in_such_a_thread_is_handed_on_if_its_debug_lines_are_wanted(handler: Keeps) -> None:
    logger = logging.getLogger("pika.tested")
    logger.addHandler(handler)
    logs.silence_on_our_connections("pika")

    def work() -> None:
        logger.warning("from %s", "pika")

    try:
        in_thread(work).join(20)
        logs.flush()
        assert handler.lines() == []
        logger.setLevel(logging.DEBUG)
        in_thread(work).join(20)
        logs.flush()
        assert handler.lines() == ["from pika"]
    finally:
        logger.setLevel(logging.NOTSET)
        logger.removeHandler(handler)


def record(number: int) -> logging.LogRecord:
    return logging.LogRecord("amqpworker.tested", logging.INFO, __file__, 1, "%d", (number,), None)


def test_lines_that_are_not_taken_are_bounded_and_their_number_is_reported(
    handler: Keeps, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(log_queue, "MAX_WAITING", 10)
    handler.go_on.clear()
    queue = LogQueue()
    for number in range(25):
        queue.put(record(number))
    handler.go_on.set()
    assert queue.flush(20)
    # The first was taken out before its handler hung, or was not yet.
    told = len(handler.lines())
    assert told in {10, 11}
    assert handler.lines() == [str(number) for number in range(told)]
    assert f"log_lines_dropped count={25 - told}" in caplog.text


def test_what_a_handler_or_a_filter_raises_ends_no_other_line(handler: Keeps, monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(record: logging.LogRecord) -> bool:
        if record.args == (1,):
            raise SystemExit(3)
        return True

    monkeypatch.setattr(logging, "raiseExceptions", False)
    handler.addFilter(raises)
    queue = LogQueue()
    for number in range(3):
        queue.put(record(number))
    assert queue.flush(20)
    assert handler.lines() == ["0", "2"]


def test_its_thread_ends_when_there_is_nothing_to_write_and_begins_again(handler: Keeps) -> None:
    queue = LogQueue()
    for number in range(3):
        queue.put(record(number))
        wait_until(lambda: not queue._running, what="its thread has ended")
    assert handler.lines() == ["0", "1", "2"]


def test_where_no_thread_can_be_started_the_lines_are_written_at_the_flush(
    handler: Keeps, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    queue = LogQueue()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refused)
        queue.put(record(1))
    assert handler.lines() == []
    queue.flush(5)
    assert handler.lines() == ["1"]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_writes_its_own_lines_and_not_those_of_its_parent(handler: Keeps) -> None:
    handler.go_on.clear()
    queue = LogQueue()
    queue.put(record(1))
    child = os.fork()
    if child == 0:
        right = False
        try:
            handler.go_on.set()
            handler.records.clear()
            queue.put(record(2))
            right = queue.flush(10) and handler.lines() == ["2"]
        finally:
            os._exit(0 if right else 1)
    assert os.waitpid(child, 0)[1] == 0
    handler.go_on.set()
    assert queue.flush(10)
    assert handler.lines() == ["1"]


EXITS = """
import logging, sys, threading, time
from amqpworker.lifecycle import run_as_io_thread
from amqpworker.log.logger import get_logger
class Slow(logging.StreamHandler):
    def emit(self, record):
        time.sleep(0.01)
        super().emit(record)
logging.basicConfig(level="INFO", handlers=[Slow(sys.stdout)])
log = get_logger("amqpworker.tested")
thread = threading.Thread(target=run_as_io_thread, args=(lambda: [log.info("line") for _ in range(50)],))
thread.start()
thread.join()
"""


def test_all_lines_are_written_before_the_interpreter_ends() -> None:
    done = subprocess.run([sys.executable, "-c", EXITS], capture_output=True, text=True, check=True)
    assert done.stdout.count("line") == 50


def test_a_line_that_another_thread_takes_away_does_not_end_flushing() -> None:
    queue = LogQueue()

    class Taken(deque[logging.LogRecord]):
        """A queue whose last line is gone between the look and the step after it."""

        def __bool__(self) -> bool:
            return True

    queue._lines = Taken()
    assert queue.flush(1)
