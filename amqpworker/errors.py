"""
Everything that amqpworker raises for its users to catch, in one tree.

    AmqpWorkerError
    ├── ConfigError             the set-up is wrong: URL, topology, task definition, settings
    ├── InvalidArguments        what was passed to a task is not what its type hints say
    ├── InvalidResult           nor is what a task returned
    ├── SendError               one message was not sent; carries it as `.message`
    │   ├── Unroutable          no queue took it
    │   ├── QueueFull           its queue has a bound, and refused it
    │   ├── QueueUnavailable    its queue refused it until `send_timeout` was over: no majority, or a bound
    │   ├── Unconfirmed         unknown: it may have arrived
    │   ├── ConnectionBlocked   the broker is under an alarm and takes no messages
    │   ├── NotConnected        it never left this process
    │   └── AccessRefused       the broker's permissions refuse it
    ├── BatchFailed             an ExceptionGroup of SendErrors, and what was sent
    ├── CallTimeout             no answer to a call in time
    ├── ResultTimeout           no stored result in time
    ├── ResultStoreError        the store of results did not do what it was asked
    ├── MalformedReply          an answer or stored result that cannot be read
    ├── TaskFailed              the task ended without a result; carries the remote error
    └── TimeLimitExceeded       raised *in* a task that has had its time

    TaskSignal                  raised *by* a task to say how its message goes on
    ├── Reject                  to the dead-letter queue, at once
    └── RetryLater              again, after a delay

Errors of pika and of the stores are translated where they appear, with the cause kept. `task.MalformedBody`,
`retry.ResultRefused` and `results.ResultNotStorable` are of the tree and not here: they never leave a worker, and are
seen as the `error_type` of a dead letter, if at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self, TypeVar

if TYPE_CHECKING:
    from amqpworker.model.message import Message

__all__ = [
    "AccessRefused",
    "AmqpWorkerError",
    "BatchFailed",
    "CallTimeout",
    "ConfigError",
    "ConnectionBlocked",
    "InvalidArguments",
    "InvalidResult",
    "MalformedReply",
    "NotConnected",
    "QueueFull",
    "QueueUnavailable",
    "Reject",
    "ResultStoreError",
    "ResultTimeout",
    "RetryLater",
    "SendError",
    "TaskFailed",
    "TaskSignal",
    "TimeLimitExceeded",
    "Unconfirmed",
    "Unroutable",
]


_Error = TypeVar("_Error", bound=BaseException)


class AmqpWorkerError(Exception):
    """The base of everything that amqpworker raises for its users to catch."""


class ConfigError(AmqpWorkerError):
    """The set-up is wrong, and trying again will not help."""


class InvalidArguments(AmqpWorkerError, ValueError):
    """The values for a task's parameters do not fit its type hints, or cannot be carried as JSON."""


class InvalidResult(AmqpWorkerError, ValueError):
    """What a task returned does not fit its return hint, or cannot be carried as JSON."""


class SendError(AmqpWorkerError):
    """
    One message was not sent.

    `message` can be sent again as it is: it keeps its id.
    """

    def __init__(self, text: str, message: Message | None = None) -> None:
        super().__init__(text)
        self.message = message


class Unroutable(SendError):
    """The broker confirmed that no queue takes messages with this exchange and routing key."""


class QueueFull(SendError):
    """The queue has a bound that this app names, and is full: it refused the message."""


class QueueUnavailable(SendError):
    """
    The queue refused the message on every channel until `send_timeout` was over.

    Most of the queue's members are not up, or it has a bound that this app does not name, and is full. The message did not
    arrive, unless a confirm of it was lost before: that is `Unconfirmed`.
    """


class Unconfirmed(SendError):
    """
    The broker's confirm, or the answer to a call, was lost: the message may have arrived, or not.

    A message is published again until `send_timeout` is over (`Settings.resend`), so this is what remains then.
    """


class ConnectionBlocked(SendError):
    """
    The broker is under a memory or disk alarm and takes no messages.

    What had been written when the alarm came may still arrive once it ends.
    """


class NotConnected(SendError):
    """
    The message never left this process.

    There was no connection to the broker in time, no thread for one, or it was sent from a thread that must not wait.
    """


class AccessRefused(SendError):
    """The user of this connection may not do this, by the broker's permissions."""


class BatchFailed(AmqpWorkerError, ExceptionGroup[SendError]):
    """
    Some messages of a batch were not sent, or not confirmed: those may have arrived.

    `exceptions` has one `SendError` for each of them, with its message; `sent` what was confirmed.
    """

    sent: list[Any]

    def __new__(cls, text: str, errors: Sequence[SendError], sent: Sequence[Any] = ()) -> Self:
        """Build the group, and keep what was sent beside it."""
        group = super().__new__(cls, text, errors)
        group.sent = list(sent)
        return group

    def __init__(self, text: str, errors: Sequence[SendError], sent: Sequence[Any] = ()) -> None:  # noqa: ARG002
        super().__init__(text, errors)

    def derive(self, errors: Sequence[SendError]) -> BatchFailed:  # type: ignore[override]
        """Keep `sent` when the group is split by `except*`."""
        return BatchFailed(self.message, errors, self.sent)


class CallTimeout(AmqpWorkerError, TimeoutError):
    """No answer to a call came in time; the task may still run, or have run."""


class ResultTimeout(AmqpWorkerError, TimeoutError):
    """No result was stored in time; the task may still run."""


class ResultStoreError(AmqpWorkerError):
    """The store of results could not write or read: locked for too long, full, damaged, gone. Trying again may help."""


class MalformedReply(AmqpWorkerError, ValueError):
    """An answer to a call, or a stored result, is not what the wire contract says; nothing of it is used."""


class TaskFailed(AmqpWorkerError):
    """
    The task ended without a result.

    `reason` is the dead-letter reason, `error_type`, `text` and `traceback` tell of the remote exception as plain
    strings. The exception itself is never rebuilt from a message.
    """

    def __init__(self, reason: str, error_type: str = "", text: str = "", traceback: str = "") -> None:
        told = f"{error_type}: {text}" if error_type else text
        super().__init__(f"The task ended as {reason!r}" + (f": {told}" if told else "."))
        self.reason = reason
        self.error_type = error_type
        self.text = text
        self.traceback = traceback

    def __reduce__(self) -> tuple[Any, ...]:
        return (restored, (type(self), self.args), vars(self))


class TimeLimitExceeded(AmqpWorkerError):
    """
    A task has run for longer than its `time_limit`.

    It is raised in the task, between two of its lines or as soon as a call into C returns, and again every 5 s until the run
    has ended; a task may catch it to clean up. It is not a `TimeoutError`: what handles errors of the network leaves it alone.
    """

    def __init__(self, text: str = "the task has run for longer than its time_limit") -> None:
        super().__init__(text)


class TaskSignal(Exception):
    """What a task raises to say how its message goes on; not an error of amqpworker."""


class Reject(TaskSignal):
    """Send the message to the dead-letter queue at once, with this reason."""

    def __init__(self, reason: str = "rejected by the task") -> None:
        super().__init__(reason)
        self.reason = reason


class RetryLater(TaskSignal):
    """
    Run the message again after `delay` seconds.

    It counts as an attempt and asks the policy's `stop`; with `count=False` it does neither.
    """

    def __init__(self, delay: float | timedelta = 0.0, *, count: bool = True) -> None:
        try:
            seconds = delay.total_seconds() if isinstance(delay, timedelta) else float(delay)
        except (TypeError, ValueError, OverflowError):
            seconds = -1.0
        if not 0 <= seconds < float("inf"):
            raise ValueError(f"RetryLater(delay={delay!r}): the delay must be zero or more seconds.")
        super().__init__(f"again in {seconds:g} s")
        self.delay = seconds
        self.count = count

    def __reduce__(self) -> tuple[Any, ...]:
        return (restored, (type(self), self.args), vars(self))


def restored(kind: type[_Error], args: tuple[Any, ...]) -> _Error:
    """Return an error as it was before it was pickled or copied, where its text is not what its class is called with."""
    return kind.__new__(kind, *args)
