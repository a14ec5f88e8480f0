"""
What a sender gets back: the id of what it sent, and a way to the stored result.

Decides how the store is asked while a result is not there yet.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Generic, Literal, NoReturn, TypeVar

from amqpworker.errors import ConfigError, ResultTimeout, TaskFailed
from amqpworker.model.headers import time_text
from amqpworker.model.reply import Answer, read
from amqpworker.results.store import ResultStore
from amqpworker.routing.delay import seconds_of

__all__ = ["Sent", "never_stored", "value_of"]

R = TypeVar("R")

FIRST_PAUSE = 0.005
LONGEST_PAUSE = 0.25


class Sent(Generic[R]):
    """A message that the broker confirmed; `R` is what its task returns."""

    __slots__ = ("_decode", "_first_sent", "_store", "id", "task")

    def __init__(
        self,
        task_id: str,
        task: str,
        store: Callable[[], ResultStore | None],
        decode: Callable[[bytes], Any],
        first_sent: int | None = None,
    ) -> None:
        self.id = task_id
        self.task = task
        self._first_sent = first_sent
        self._store = store
        self._decode = decode

    def __repr__(self) -> str:
        return f"<sent {self.task}, id {self.id}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as what it names: the store of another process is another."""
        return (Sent, (self.id, self.task, no_store, no_store, self._first_sent))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sent) and (other.id, other._first_sent) == (self.id, self._first_sent)

    def __hash__(self) -> int:
        return hash(self.id)

    def result(self, timeout: float | timedelta = 10.0) -> R:
        """
        Return what the task returned, typed by its return hint, as soon as it is stored.

        Raises:
            TaskFailed: the task ended without a result.
            ResultTimeout: nothing was stored within `timeout` seconds.
            ResultStoreError: the store could not be asked.
            MalformedReply: what is stored is no result.
            InvalidResult: the result is not what the task's return hint allows.
            InvalidArguments: `timeout` is no duration.
            ConfigError: the app or the task stores no results, or the store cannot be opened.
        """
        seconds = seconds_of(timeout, "timeout")
        until = time.monotonic() + seconds
        pause = FIRST_PAUSE
        while (answer := self._fetch()) is None:
            left = until - time.monotonic()
            if left <= 0:
                raise ResultTimeout(f"No result of task {self.task!r} within {seconds:g} s (id {self.id}).")
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, LONGEST_PAUSE)
        return value_of(answer, self._decode)  # type: ignore[no-any-return]

    def status(self) -> Literal["pending", "done", "failed"]:
        """
        Return what the store knows; `pending` stands for everything before the end, and for a result that expired.

        Raises:
            ResultStoreError: the store could not be asked.
            MalformedReply: what is stored is no result.
            ConfigError: the app or the task stores no results, or the store cannot be opened.
        """
        answer = self._fetch()
        return "pending" if answer is None else answer.status

    def _fetch(self) -> Answer | None:
        store = self._store()
        if store is None:
            raise ConfigError(
                "This app stores no results: give it a store, such as App(results='sqlite:///results.db'), "
                "in the process that sends and in the workers."
            )
        # An id may have been used before: what is stored of an earlier message is no result of this one.
        first_sent = None if self._first_sent is None else time_text(self._first_sent)
        stored = store.fetch(self.id, first_sent)
        return None if stored is None else read(stored)


def never_stored() -> NoReturn:
    """Refuse to fetch what is never stored."""
    raise ConfigError(
        "This task stores no results, since it is declared with result=False: use call, or leave that out."
    )


def no_store(*_: object) -> NoReturn:
    """Refuse to fetch a result."""
    raise ConfigError("This `Sent` was copied or came from another process, without its app: ask the one that sent it.")


def value_of(answer: Answer, decode: Callable[[bytes], Any]) -> Any:
    """
    Return the value of an answer.

    Raises:
        TaskFailed: it tells of a failure.
        InvalidResult: the value is not what `decode` takes.
    """
    if answer.status == "failed":
        raise TaskFailed(answer.reason, answer.error_type, answer.text, answer.traceback)
    return decode(answer.value or b"null")
