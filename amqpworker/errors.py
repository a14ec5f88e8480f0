"""
The errors that amqpworker raises for its users to catch, in one tree.

    AmqpWorkerError
    ├── ConfigError             the set-up is wrong: URL, topology, task definition, settings
    ├── InvalidArguments        arguments do not fit a task's type hints, or an option is not valid
    ├── InvalidResult           a result does not fit the return hint
    ├── NoCurrentTask           `current()` was called outside a task
    ├── QueueBusy               a queue cannot be read as a whole: another program is reading it
    ├── SendError               one message was not sent; carries it as `.message`
    │   ├── Unroutable          no queue is bound for it
    │   ├── QueueFull           its queue has a length limit, and is full
    │   ├── QueueUnavailable    its queue refused it until `send_timeout` was over: no majority, or full
    │   ├── Unconfirmed         unknown: it may have arrived
    │   ├── ConnectionBlocked   the broker has an alarm and accepts no messages
    │   ├── NotConnected        it never left this process
    │   └── AccessRefused       the broker's permissions do not allow it
    ├── BatchFailed             an ExceptionGroup of SendErrors, and what was sent
    ├── CallTimeout             no reply to a call in time
    ├── ResultTimeout           no stored result in time
    ├── ResultStoreError        the result store could not read or write
    ├── MalformedReply          a reply or stored result that cannot be read
    ├── TaskFailed              the task ended without a result; carries the remote error
    ├── TimeLimitExceeded       raised *in* a task that runs longer than its limit
    └── TaskCancelled           raised *in* a task that is cancelled with force

    TaskSignal                  raised *by* a task to decide what happens to its message
    ├── Reject                  to the dead-letter queue, at once
    └── RetryLater              again, after a delay

A command or a worker process that ends with one of them exits with code 2 if it is a `ConfigError`, with code 1 otherwise.

Errors of pika and of the stores are translated where they appear, with the cause kept. `signature.MalformedBody`,
`signature.UnknownParameter`, `versions.UpgradeFailed`, `retry.ResultRefused` and `results.ResultNotStorable` belong to the tree
but are defined elsewhere: they never leave a worker; users see them at most as the `error_type` of a dead letter. So is
`results.RowsNotReadable`, which callers need not distinguish from a ResultStoreError.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self, TypeVar

if TYPE_CHECKING:
    from amqpworker.model.message import Message


_Error = TypeVar("_Error", bound=BaseException)


class AmqpWorkerError(Exception):
    """The base of all errors that amqpworker raises for its users to catch."""


class ConfigError(AmqpWorkerError):
    """The set-up is wrong; trying again does not help."""


class InvalidArguments(AmqpWorkerError, ValueError):
    """Arguments do not fit a task's type hints or cannot be carried as JSON, or an option of a message is not valid."""


class InvalidResult(AmqpWorkerError, ValueError):
    """What a task returned does not fit its return hint, or cannot be carried as JSON."""


class NoCurrentTask(AmqpWorkerError, LookupError):
    """`current()` was called by code that does not run inside a task of a worker."""


class QueueBusy(AmqpWorkerError):
    """A queue of pending or dead messages could not be read as a whole: another program is reading it. Try again later."""


class SendError(AmqpWorkerError):
    """
    One message was not sent.

    `message` can be sent again as it is: it keeps its id.
    """

    def __init__(self, text: str, message: Message | None = None) -> None:
        super().__init__(text)
        self.message = message


class Unroutable(SendError):
    """The broker confirmed that no queue is bound for messages with this exchange and routing key."""


class QueueFull(SendError):
    """The queue has a length limit that this app declares, and is full: it refused the message."""


class QueueUnavailable(SendError):
    """
    The queue refused the message on every channel until `send_timeout` was over.

    Most of the queue's members are down, or it has a length limit that this app does not declare, and is full. The message
    did not arrive, unless a confirm of it was lost before: that is `Unconfirmed`.
    """


class Unconfirmed(SendError):
    """
    The broker's confirm, or the reply to a call, was lost: the message may have arrived, or not.

    It is raised when `send_timeout` is over; until then the message is published again (`Settings.resend`).
    """


class ConnectionBlocked(SendError):
    """
    The broker has a memory or disk alarm and accepts no messages.

    A message that was written before the alarm may still arrive once the alarm ends.
    """


class NotConnected(SendError):
    """
    The message never left this process.

    No connection could be opened in time, no thread could be started for it, or the sending thread must not wait.
    """


class AccessRefused(SendError):
    """The user of this connection has no permission for this."""


class BatchFailed(AmqpWorkerError, ExceptionGroup[SendError]):
    """
    Some messages of a batch were not sent, or not confirmed: those may have arrived.

    `exceptions` has one `SendError` for each of them, with its message; `sent` has the others.
    """

    sent: list[Any]

    def __new__(cls, text: str, errors: Sequence[SendError], sent: Sequence[Any] = ()) -> Self:
        """Build the group, with what was sent as an attribute."""
        group = super().__new__(cls, text, errors)
        group.sent = list(sent)
        return group

    def __init__(self, text: str, errors: Sequence[SendError], sent: Sequence[Any] = ()) -> None:  # noqa: ARG002
        super().__init__(text, errors)

    def derive(self, errors: Sequence[SendError]) -> BatchFailed:  # type: ignore[override]
        """Keep `sent` when the group is split by `except*`."""
        return BatchFailed(self.message, errors, self.sent)


class CallTimeout(AmqpWorkerError, TimeoutError):
    """No reply to a call came in time; the task may still run, or have run."""


class ResultTimeout(AmqpWorkerError, TimeoutError):
    """No result was stored in time; the task may still run."""


class ResultStoreError(AmqpWorkerError):
    """The result store could not read or write: locked for too long, full, damaged, gone. Trying again may help."""


class MalformedReply(AmqpWorkerError, ValueError):
    """A reply to a call, or a stored result, does not follow the wire contract; nothing of it is used."""


class TaskFailed(AmqpWorkerError):
    """
    The task ended without a result.

    `reason` is the dead-letter reason; `error_type`, `text` and `traceback` describe the remote exception as plain
    strings. The exception itself is never rebuilt from a message.
    """

    def __init__(self, reason: str, error_type: str = "", text: str = "", traceback: str = "") -> None:
        described = f"{error_type}: {text}" if error_type else text
        super().__init__(f"The task ended as {reason!r}" + (f": {described}" if described else "."))
        self.reason = reason
        self.error_type = error_type
        self.text = text
        self.traceback = traceback

    def __reduce__(self) -> tuple[Any, ...]:
        return (_restored, (type(self), self.args), vars(self))


class TimeLimitExceeded(AmqpWorkerError):
    """
    A task has run for longer than its `time_limit`.

    It is raised in the task, between two of its lines or as soon as a call into C returns, and again every 5 s until the run
    has ended; a task may catch it to clean up. It is not a `TimeoutError`, so code that handles network errors does not
    catch it.
    """

    def __init__(self, text: str = "the task has run for longer than its time_limit") -> None:
        super().__init__(text)


class TaskCancelled(AmqpWorkerError):
    """
    A task that runs was cancelled with `force`.

    It is raised in the task as `TimeLimitExceeded` is, and again every 5 s until the run has ended; a coroutine gets
    `asyncio.CancelledError` instead. A task may also raise it itself, once `current().cancelled` is true: the message ends as
    cancelled, without a retry and without a dead letter.
    """

    def __init__(self, text: str = "the task was cancelled while it ran") -> None:
        super().__init__(text)


class TaskSignal(Exception):
    """What a task raises to decide what happens to its message; not an error of amqpworker."""


class Reject(TaskSignal):
    """Send the message to the dead-letter queue at once, with this reason."""

    def __init__(self, reason: str = "rejected by the task") -> None:
        super().__init__(reason)
        self.reason = reason


class RetryLater(TaskSignal):
    """
    Run the message again after `delay` seconds, in its queue or in another `queue` of the app.

    It counts as an attempt, and the policy's `stop` may refuse it; with `count=False` it is the same attempt again, and neither
    applies. From the other queue it does not return by itself. If the app has no such queue, the message is dead-lettered with
    the reason `failed`, and an error that names the queue.

    Raises:
        ValueError: the delay is not zero or more seconds, or the queue is not a name.
    """

    def __init__(self, delay: float | timedelta = 0.0, *, count: bool = True, queue: str | None = None) -> None:
        try:
            seconds = delay.total_seconds() if isinstance(delay, timedelta) else float(delay)
        except (TypeError, ValueError, OverflowError):
            seconds = -1.0
        if not 0 <= seconds < float("inf"):
            raise ValueError(f"RetryLater(delay={delay!r}): the delay must be zero or more seconds.")
        if not _is_name_or_none(queue):
            raise ValueError(f"RetryLater(queue={queue!r:.60}): it must be the name of a queue.")
        super().__init__(f"again in {seconds:g} s" + (f" in queue {queue!r}" if queue else ""))
        self.delay = seconds
        self.count = count
        self.queue = queue

    def __reduce__(self) -> tuple[Any, ...]:
        return (_restored, (type(self), self.args), vars(self))


def _is_name_or_none(value: object) -> bool:
    return value is None or (isinstance(value, str) and bool(value))


def _restored(kind: type[_Error], args: tuple[Any, ...]) -> _Error:
    """Return an error as it was before it was pickled or copied, for classes that are not called with the error's text."""
    return kind.__new__(kind, *args)
