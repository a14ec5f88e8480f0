"""`send_each` and `send_many`: lazy, in order, in flat memory, and all or an error."""

from __future__ import annotations

import gc
import statistics
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from amqpworker import App, InvalidArguments, Message, SendError, Sent
from amqpworker.client.batch import MAX_BYTES as WINDOW_BYTES
from amqpworker.client.batch import MAX_MESSAGES as WINDOW
from tests.integration.tasks import QUEUE, echo_of, messages
from tests.support import Broker

MakeApp = Callable[..., App]


class Source:
    """Yields messages and counts how many were read."""

    def __init__(self, source: Iterator[Message]) -> None:
        self._source = source
        self.read = 0

    def __iter__(self) -> Iterator[Message]:
        for message in self._source:
            self.read += 1
            yield message


def test_nothing_is_read_before_an_outcome_is_asked_for_and_no_more_than_the_window_ahead(app: App) -> None:
    source = Source(messages(echo_of(app), 3 * WINDOW))
    outcomes = app.send_each(source)
    assert source.read == 0
    for taken in range(1, 3 * WINDOW + 1):
        next(outcomes)
        assert source.read - taken < WINDOW
    assert source.read == 3 * WINDOW


def test_what_is_confirmed_is_reported_even_if_the_source_is_slow(app: App) -> None:
    told: list[str] = []
    echo = echo_of(app)

    def slow() -> Iterator[Message]:
        for _ in range(10):
            message = echo.message("x")
            yield message
            threading.Event().wait(0.1)

    begin = time.monotonic()
    for outcome in app.send_each(slow()):
        assert isinstance(outcome, Sent)
        told.append(outcome.id)
        if len(told) == 3:
            break
    assert time.monotonic() - begin < 0.9


def test_the_last_messages_of_a_batch_do_not_wait_for_others(app: App) -> None:
    echo = echo_of(app)

    def three() -> Iterator[Message]:
        for _ in range(3):
            yield echo.message("x")
            threading.Event().wait(0.001)

    app.send_many(three())
    took = []
    for _ in range(11):
        begin = time.monotonic()
        app.send_many(three())
        took.append(time.monotonic() - begin)
    assert statistics.median(took) < 0.03  # and not at the next check of deadlines, 0.05 s later


def test_memory_stays_flat_for_very_many_small_messages(make_app: MakeApp, vhost: Broker) -> None:
    app = make_app(send_timeout=30.0)
    outcomes = app.send_each(messages(echo_of(app), 200_000))
    for _ in range(3 * WINDOW):
        next(outcomes)
    gc.collect()
    before = resident()
    sent = sum(isinstance(one, Sent) for one in outcomes)
    assert sent == 200_000 - 3 * WINDOW
    assert resident() - before < 8 * 1024 * 1024  # 200,000 messages would be 100 MiB and more
    assert vhost.count(QUEUE) == 200_000


def resident() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096


def test_large_bodies_are_bounded_by_bytes(app: App, vhost: Broker) -> None:
    size = 1024 * 1024 - 100
    source = Source(messages(echo_of(app), 60, "x" * size))
    outcomes = app.send_each(source)
    for taken in range(1, 61):
        assert isinstance(next(outcomes), Sent)
        assert (source.read - taken) * size < WINDOW_BYTES
    assert vhost.count(QUEUE) == 60


def test_a_source_that_fails_does_so_after_the_outcomes_of_what_was_read(app: App, vhost: Broker) -> None:
    echo = echo_of(app)

    def failing() -> Iterator[Message]:
        yield from messages(echo, 50)
        raise RuntimeError("the database is gone")

    told: list[object] = []
    with pytest.raises(RuntimeError, match="the database is gone"):
        told.extend(app.send_each(failing()))
    assert len(told) == 50
    assert vhost.count(QUEUE) == 50
    with pytest.raises(RuntimeError):
        app.send_many(failing())
    assert vhost.count(QUEUE) == 100


def test_invalid_arguments_in_mid_batch_name_the_parameter_and_the_rest_is_reported(app: App, vhost: Broker) -> None:
    echo = echo_of(app)
    values: list[object] = ["a", "b", 3, "d"]
    told: list[object] = []
    with pytest.raises(InvalidArguments, match="text"):
        told.extend(app.send_each(echo.message(one) for one in values))  # type: ignore[arg-type]
    assert len(told) == 2
    assert vhost.count(QUEUE) == 2


def test_an_abandoned_iterator_leaves_what_was_read_to_be_confirmed(app: App, vhost: Broker) -> None:
    source = Source(messages(echo_of(app), 5000))
    outcomes = app.send_each(source)
    next(outcomes)
    del outcomes
    read = source.read
    app.close()
    assert vhost.count(QUEUE) == read


def test_many_threads_may_iterate_at_once(app: App, vhost: Broker) -> None:
    echo = echo_of(app)
    counts: list[int] = []

    def run() -> None:
        counts.append(sum(isinstance(one, Sent) for one in app.send_each(messages(echo, 1500))))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert counts == [1500] * 8
    assert vhost.count(QUEUE) == 12_000


def test_a_lost_connection_in_mid_batch_is_reported_for_each_message_that_may_not_be_sent_again(
    make_app: MakeApp, vhost: Broker
) -> None:
    app = make_app(resend=False)
    echo = echo_of(app)
    batch: list[Message] = []
    outcomes: list[Sent[str] | SendError] = []

    def close_until_one_fails() -> None:
        # It may be closed in a moment when nothing is under way.
        while all(isinstance(one, Sent) for one in list(outcomes)):
            vhost.close_connections()

    closing = threading.Thread(target=close_until_one_fails)

    def source() -> Iterator[Message]:
        yield from messages(echo, 3000)
        closing.start()
        while closing.is_alive():
            yield echo.message("x")
        yield from messages(echo, 3000)

    outcomes.extend(app.send_each(batch.append(one) or one for one in source()))  # type: ignore[func-returns-value]
    assert len(outcomes) == len(batch)
    sent = {one.id for one in outcomes if isinstance(one, Sent)}
    failed = [one.message for one in outcomes if not isinstance(one, Sent) and one.message is not None]
    assert failed
    assert [one.id for one in batch if one.id not in sent] == [one.id for one in failed]
    app.send_many(failed)
    assert vhost.count(QUEUE) >= len(batch)
