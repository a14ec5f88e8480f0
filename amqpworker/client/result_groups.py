"""
Wait for the results of several messages at once.

Decides their order: `as_completed` yields each as soon as it has ended, `gather` returns all in the order of the input.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import timedelta
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Literal, TypeVar, overload

from amqpworker.client.event_loop_warning import warn_in_event_loop
from amqpworker.client.result_waits import ResultWait
from amqpworker.client.sent import Sent
from amqpworker.client.stored_results import StoredResults, WaitingTime, raise_last_error, row_or_raise
from amqpworker.errors import AmqpWorkerError, InvalidArguments, ResultTimeout
from amqpworker.policies.durations import duration
from amqpworker.results.row import ResultRow

R = TypeVar("R")


def as_completed(sents: Iterable[Sent[R]], *, timeout: float | timedelta = 10.0) -> Iterator[Sent[R]]:
    """
    Yield each of the messages as soon as its task has ended, with a result or without one.

    They may be of several tasks and apps; one that is given twice is yielded twice. `result()` of what is yielded does not wait.
    In coroutines use `asyncio.as_completed` with `sent.aresult()`.

    Raises:
        ResultTimeout: some have not ended within `timeout` seconds.
        ResultStoreError: the store cannot be read.
        InvalidArguments: `timeout` is not a duration, or one of `sents` was not sent.
        ConfigError: an app or a task stores no results, or the store cannot be opened.

    Example:
        for sent in as_completed([resize.send(image) for image in images], timeout=60):
            print(sent.result())
    """
    seconds = duration(timeout, "timeout")
    warn_in_event_loop("result")
    messages = _all_sent(sents)
    return (messages[number] for number, _ in _completed(messages, seconds))


def _all_sent(sents: Iterable[Sent[R]]) -> list[Sent[R]]:
    messages = list(sents)
    for one in messages:
        if not isinstance(one, Sent):
            raise InvalidArguments(
                f"A {type(one).__name__} has no result to wait for: give what send or send_many returns."
            )
    return messages


def _completed(sents: list[Sent[R]], seconds: float) -> Iterator[tuple[int, ResultRow]]:
    """Yield the places of the messages in the list, each with its row, as soon as its task has ended."""
    ended: SimpleQueue[tuple[int, ResultRow | Exception]] = SimpleQueue()

    def put(number: int, result: ResultRow | Exception) -> None:
        ended.put((number, result))

    waits: list[tuple[StoredResults, ResultWait]] = []
    stores = [sent.stored_results() for sent in sents]
    try:
        waiting = stores[0].waiting_time(seconds) if stores else WaitingTime(seconds)
        for number, (sent, results) in enumerate(zip(sents, stores, strict=True)):
            waits.append((results, results.begin(sent.wanted, partial(put, number), waiting.left)))
        begun = [wait for _, wait in waits]
        for left in range(len(sents), 0, -1):
            found = _next(ended, waiting, begun)
            if found is None:
                for wait in begun:
                    raise_last_error(wait)
                raise ResultTimeout(f"{left} of {len(sents)} tasks have not ended within {seconds:g} s.")
            number, result = found
            yield number, row_or_raise(result)
    finally:
        for results, wait in waits:
            results.abandon(wait)


def _next(
    ended: SimpleQueue[tuple[int, ResultRow | Exception]], waiting: WaitingTime, waits: list[ResultWait]
) -> tuple[int, ResultRow | Exception] | None:
    """Return the next result, None once the time is over."""
    while True:
        is_over = waiting.is_over(*waits)
        with suppress(Empty):
            return ended.get_nowait() if is_over else ended.get(timeout=waiting.slice())
        if is_over:
            return None


@overload
def gather(sents: Iterable[Sent[R]], *, timeout: float | timedelta = 10.0) -> list[R]: ...


@overload
def gather(
    sents: Iterable[Sent[R]], *, timeout: float | timedelta = 10.0, return_exceptions: Literal[True]
) -> list[R | AmqpWorkerError]: ...


def gather(
    sents: Iterable[Sent[Any]], *, timeout: float | timedelta = 10.0, return_exceptions: bool = False
) -> list[Any]:
    """
    Return what the tasks of the messages returned, in the order of the messages, once all have ended.

    The first one that fails ends the wait with its error; with `return_exceptions` the errors of tasks take the place of their
    values. In coroutines use `asyncio.gather` with `sent.aresult()`.

    Raises:
        TaskFailed: a task failed.
        InvalidResult: a result does not match the return hint of its task.
        MalformedReply: what is stored is not a result.
        ResultTimeout: some have not ended within `timeout` seconds.
        ResultStoreError: the store cannot be read.
        InvalidArguments: `timeout` is not a duration, or one of `sents` was not sent.
        ConfigError: an app or a task stores no results, or the store cannot be opened.

    Example:
        thumbnails = gather([resize.send(image) for image in images], timeout=60)
    """
    seconds = duration(timeout, "timeout")
    warn_in_event_loop("result")
    messages = _all_sent(sents)
    values: dict[int, Any] = {}
    # By their places: messages of two apps may have the same id.
    for number, row in _completed(messages, seconds):
        try:
            values[number] = messages[number]._value_in(row)  # noqa: SLF001 - as `Sent.result` does
        except AmqpWorkerError as error:
            if not return_exceptions:
                raise
            values[number] = error
    return [values[number] for number in range(len(messages))]
