"""
What `send` returns: the id of the message, access to its stored result, and its cancel.

Decides how the store is polled until the result is stored; `cancelling` decides what a cancel is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, Literal, NoReturn, TypeVar

from amqpworker.client.cancelling import CancellingApp, announce
from amqpworker.client.event_loop_warning import require_event_loop, warn_in_event_loop
from amqpworker.errors import ConfigError, ResultTimeout, TaskFailed
from amqpworker.model.headers import time_text
from amqpworker.model.message import Message
from amqpworker.model.reply import Reply, decode_reply
from amqpworker.policies.durations import duration
from amqpworker.policies.foreign_names import SENT_ATTRIBUTES, unknown_attribute
from amqpworker.results.store import ResultStore

R = TypeVar("R")

FIRST_PAUSE = 0.005
MAX_PAUSE = 0.25


@dataclass(frozen=True, slots=True)
class Origin(Generic[R]):
    """Where the messages of a task were sent: by an `app`, whose `store` has their results, which `decode` reads."""

    store: Callable[[], ResultStore | None]
    decode: Callable[[bytes], R]
    app: CancellingApp | None = None

    def __reduce__(self) -> str:
        """Pickle and copy by name: `Sent` replaces each by the one without an app, since a store belongs to its process."""
        return "NO_ORIGIN"


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
        """Pickle and copy without the origin."""
        return (Sent, (self.id, self.task, NO_ORIGIN, self._first_sent, self._due))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sent) and (other.id, other._first_sent) == (self.id, self._first_sent)

    def __hash__(self) -> int:
        return hash(self.id)

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
        pauses = self._pauses(duration(timeout, "timeout"))
        warn_in_event_loop("result")
        while (reply := self._stored_reply()) is None:
            time.sleep(next(pauses))
        return value_of(reply, self._origin.decode)

    async def aresult(self, timeout: float | timedelta = 10.0) -> R:
        """As `result`, without blocking the event loop: the store is read in other threads."""
        pauses = self._pauses(duration(timeout, "timeout"))
        require_event_loop()
        while (reply := await asyncio.to_thread(self._stored_reply)) is None:
            await asyncio.sleep(next(pauses))
        return value_of(reply, self._origin.decode)

    def _pauses(self, seconds: float) -> Iterator[float]:
        """Yield how long to wait before the store is read again; raises ResultTimeout once `seconds` are over."""
        until = time.monotonic() + seconds
        pause = FIRST_PAUSE
        while (left := until - time.monotonic()) > 0:
            yield min(pause, left)
            pause = min(pause * 1.5, MAX_PAUSE)
        raise ResultTimeout(f"No result of task {self.task!r} within {seconds:g} s (id {self.id}).")

    def status(self) -> Literal["pending", "done", "failed"]:
        """
        Return the state of the task; `pending` means that it has not ended, or that its result has expired.

        Raises:
            ResultStoreError: the store cannot be read.
            MalformedReply: what is stored is not a result.
            ConfigError: the app or the task stores no results, or the store cannot be opened.
        """
        warn_in_event_loop("status")
        return self._status()

    async def astatus(self) -> Literal["pending", "done", "failed"]:
        """As `status`, without blocking the event loop: the store is read in another thread."""
        require_event_loop()
        return await asyncio.to_thread(self._status)

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
                f"This `Sent` was copied or pickled, so it has no app: call cancel() of the original, or "
                f"app.pending.cancel({self.id!r})."
            )
        announce(app, (self.id,), due=self._due, force=force, first_sent=self._first_sent)

    def _status(self) -> Literal["pending", "done", "failed"]:
        reply = self._stored_reply()
        return "pending" if reply is None else reply.status

    def _stored_reply(self) -> Reply | None:
        store = self._origin.store()
        if store is None:
            raise ConfigError(
                "This app stores no results: give it a store, such as App(results='sqlite:///results.db'), "
                "in the process that sends and in the workers."
            )
        row = store.get((self.id,)).get(self.id)
        if row is None or row.expires_at <= time.time() or not row.reply:
            return None
        # the id may have been used before: the result of another message is not the result of this one
        if self._first_sent is not None and row.first_sent not in ("", time_text(self._first_sent)):
            return None
        return decode_reply(row.reply)


def due_of(message: Message[Any], sent: float) -> float:
    """Return when a delayed message that was just sent falls due, in seconds since the epoch; never too early."""
    return sent + (message.delay or 0.0) if message.at is None else message.at.timestamp()


def never_stored() -> NoReturn:
    """Refuse to get the result of a task that stores none."""
    raise ConfigError(
        "This task is declared with result=False, so its results are not stored: use call, or remove result=False."
    )


def no_store(*_: object) -> NoReturn:
    """Refuse to get a result without an app."""
    raise ConfigError("This `Sent` was copied or pickled, so it has no app: call result() of the original.")


NO_ORIGIN: Origin[Any] = Origin(no_store, no_store)


def value_of(reply: Reply, decode: Callable[[bytes], R]) -> R:
    """Return the value of a reply; raises TaskFailed if the task failed, InvalidResult if `decode` refuses the value."""
    if reply.status == "failed":
        raise TaskFailed(reply.reason, reply.error_type, reply.text, reply.traceback)
    return decode(reply.value or b"null")
