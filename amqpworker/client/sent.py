"""
What `send` returns: the id of the message, access to its stored result, and its cancel.

`stored_results` decides how it is waited for, `cancelling` what a cancel is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Protocol, Self, TypeVar

from amqpworker.client.cancelling import CancellingApp, announce
from amqpworker.client.event_loop_warning import require_event_loop, warn_in_event_loop
from amqpworker.client.result_waits import WantedResult
from amqpworker.client.stored_results import StoredResults
from amqpworker.errors import ConfigError, InvalidResult, ResultTimeout, TaskFailed
from amqpworker.model.message import Message
from amqpworker.model.message_status import Status
from amqpworker.model.reply import RESULT_REFUSED, Reply, decode_reply
from amqpworker.policies.durations import duration
from amqpworker.policies.foreign_names import RESULT_OPTIONS, SENT_ATTRIBUTES, refuses_foreign, unknown_attribute
from amqpworker.results.row import ResultRow

R = TypeVar("R")


class OriginApp(CancellingApp, Protocol):
    """What a sent message needs of its app."""

    def place_of(self, name: str) -> tuple[str, str] | None:
        """Return the module and name under which another process finds a task of this app; None if there is none."""


@dataclass(frozen=True, slots=True)
class Origin(Generic[R]):
    """
    Where the messages of a task were sent: by an `app`, whose `results` are those of its store, and which `decode` reads.

    `results` raises ConfigError if none are stored. `on_sent` is called with each message that was sent, unless it is None. If the task `dedupes`, the
    result of one message with an id is that of all.
    """

    results: Callable[[], StoredResults]
    decode: Callable[[bytes], R]
    app: OriginApp | None = None
    on_sent: Callable[[Message[Any]], None] | None = None
    dedupes: bool = False


class Sent(Generic[R]):
    """A message that the broker confirmed; `R` is what its task returns."""

    __slots__ = ("_due", "_first_sent", "_origin", "id", "task")

    def __init__(
        self,
        task_id: str,
        task: str,
        origin: Origin[R],
        first_sent: int | None = None,
        due: float | None = None,
    ) -> None:
        self.id = task_id
        self.task = task
        self._origin = origin
        self._first_sent = first_sent
        # When it falls due, in seconds since the epoch, if it is delayed.
        self._due = due

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise unknown_attribute("Sent", name, SENT_ATTRIBUTES)

    def __repr__(self) -> str:
        return f"<sent {self.task}, id {self.id}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle with the place of its task, so that another process finds the app there."""
        app = self._origin.app
        place = None if app is None else app.place_of(self.task)
        return (_unpickled, (self.id, self.task, self._first_sent, self._due, place))

    def __copy__(self) -> Self:
        """Return itself: it does not change."""
        return self

    def __deepcopy__(self, _: object) -> Self:
        """Return itself: it does not change."""
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sent) and (other.id, other._first_sent) == (self.id, self._first_sent)

    def __hash__(self) -> int:
        return hash(self.id)

    @refuses_foreign(RESULT_OPTIONS)
    def result(self, timeout: float | timedelta = 10.0) -> R:
        """
        Return what the task returned, in the type of its return hint, as soon as it is stored.

        Raises:
            TaskFailed: the task failed.
            ResultTimeout: nothing was stored within `timeout` seconds.
            ResultStoreError: the store cannot be read.
            MalformedReply: what is stored is not a result.
            InvalidResult: the result does not match the task's return hint.
            InvalidArguments: `timeout` is not a duration.
            ConfigError: the app or the task stores no results, or the store cannot be opened.
        """
        seconds = duration(timeout, "timeout")
        warn_in_event_loop("result")
        return self._value_of(self._origin.results().wait(self.wanted, seconds), seconds)

    @refuses_foreign(RESULT_OPTIONS)
    async def aresult(self, timeout: float | timedelta = 10.0) -> R:
        """As `result`, without blocking the event loop: the store is read in another thread."""
        seconds = duration(timeout, "timeout")
        require_event_loop()
        return self._value_of(await self._origin.results().await_row(self.wanted, seconds), seconds)

    def _value_of(self, row: ResultRow | None, seconds: float) -> R:
        if row is None:
            raise ResultTimeout(f"No result of task {self.task!r} within {seconds:g} s (id {self.id}).")
        return self._value_in(row)

    def _value_in(self, row: ResultRow) -> R:
        """Return what the task returned, by its row; raises as `result` does."""
        return value_of(decode_reply(row.reply), self._origin.decode)

    def status(self) -> Status:
        """
        Return how far the message has come: its `state` is `pending` if nothing is stored, else `done`, `failed` or `cancelled`.

        Of tasks with `track=True` it may also be `sent` or `running`. Nothing is stored if the task has not ended, or if what was
        stored has expired.

        Raises:
            ResultStoreError: the store cannot be read.
            ConfigError: the app or the task stores no results, or the store cannot be opened.
        """
        warn_in_event_loop("status")
        return self._origin.results().status(self.wanted)

    async def astatus(self) -> Status:
        """As `status`, without blocking the event loop: the store is read in another thread."""
        require_event_loop()
        return await asyncio.to_thread(self._origin.results().status, self.wanted)

    def cancel(self, *, force: bool = False) -> None:
        """
        Cancel the message: its task does not start on any worker that is connected when it falls due, or that starts later.

        That holds until seven days after its due time; with a result store a delayed task does not start at all. It returns
        once the broker has confirmed the cancel. A task that runs already sees it in `current().cancelled`, within a second;
        with `force` it gets `TaskCancelled`, a coroutine is cancelled, and an isolated process is ended. The result is then
        `TaskFailed` with the reason `cancelled`, unless there is a result already. The message stays where it waits until then:
        `app.pending.cancel` also removes it.

        Raises:
            SendError: the cancel was not confirmed in time; cancel again.
            ResultStoreError: it is announced, but the result store cannot be written.
            ConfigError: this was copied or pickled, so it has no app, or the stream of cancels cannot be declared.
        """
        warn_in_event_loop("cancel")
        self._announce(force)

    async def acancel(self, *, force: bool = False) -> None:
        """As `cancel`, without blocking the event loop: it is published by another thread."""
        require_event_loop()
        await asyncio.to_thread(self._announce, force)

    def _announce(self, force: bool) -> None:
        app = self._origin.app
        if app is None:
            raise ConfigError(
                f"This `Sent` was pickled, and its task is not at the top level of a module that can be imported here: call "
                f"app.pending.cancel({self.id!r})."
            )
        announce(app, (self.id,), due=self._due, force=force, first_sent=self._first_sent)

    def stored_results(self) -> StoredResults:
        """Return what reads its result; raises ConfigError if none is stored."""
        return self._origin.results()

    @property
    def wanted(self) -> WantedResult:
        """Which result is that of this message."""
        return WantedResult(self.id, self._first_sent, self._origin.dedupes)


def due_of(message: Message[Any], sent: float) -> float:
    """Return when a delayed message that was just sent falls due, in seconds since the epoch; never too early."""
    return sent + (message.delay or 0.0) if message.at is None else message.at.timestamp()


def never_stored() -> NoReturn:
    """Refuse to get the result of a task that stores none."""
    raise ConfigError(
        "This task is declared with result=False, so its results are not stored: use call, or remove result=False."
    )


def no_results() -> NoReturn:
    """Refuse to get a result of an app that has no store."""
    raise ConfigError(
        "This app stores no results: give it a store, such as App(results='sqlite:///results.db'), in the process that sends "
        "and in the workers."
    )


def no_app(*_: object) -> NoReturn:
    """Refuse to get a result without an app."""
    raise ConfigError(
        "This `Sent` was pickled, and its task is not at the top level of a module that can be imported here: call "
        "app.result(id) of the app."
    )


NO_ORIGIN: Origin[Any] = Origin(no_app, no_app)


def _unpickled(
    task_id: str, task: str, first_sent: int | None, due: float | None, place: tuple[str, str] | None
) -> Sent[Any]:
    return Sent(task_id, task, NO_ORIGIN if place is None else _origin_at(*place, task), first_sent, due)


def _origin_at(module: str, path: str, task: str) -> Origin[Any]:
    try:
        found = attrgetter(path)(import_module(module))
        origin = found.app.origin(task)
    except (ImportError, AttributeError):
        return NO_ORIGIN
    return origin if isinstance(origin, Origin) else NO_ORIGIN


def value_of(reply: Reply, decode: Callable[[bytes], R]) -> R:
    """Return the value of a reply; raises TaskFailed if the task failed, InvalidResult if its result was refused, or is by `decode`."""
    if reply.status == "failed":
        if reply.reason == RESULT_REFUSED:
            raise InvalidResult(f"The task is done, and its result cannot be had: {reply.text}")
        raise TaskFailed(reply.reason, reply.error_type, reply.text, reply.traceback)
    return decode(reply.value or b"null")
