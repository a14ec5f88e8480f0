"""Decides who may send, whether a message is sent again since its publisher was just closed, and which error a caller sees."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Any, TypeVar

from amqpworker.broker.keeper import CLOSED
from amqpworker.broker.pending_publish import PendingPublish
from amqpworker.broker.publish_core import PublishCore
from amqpworker.broker.publish_errors import not_written
from amqpworker.errors import AmqpWorkerError, InvalidArguments, NotConnected, SendError, Unconfirmed
from amqpworker.lifecycle import in_io_thread
from amqpworker.model.message import Message
from amqpworker.policies.durations import duration
from amqpworker.settings import Settings

R = TypeVar("R")


def require_message(message: Message[R]) -> Message[R]:
    """Return a message; raises InvalidArguments for anything else."""
    if not isinstance(message, Message):
        kind = type(message).__name__
        raise InvalidArguments(f"Expected a Message, such as task.message(…) returns, got a {kind}.")
    return message


def timeout_of_call(message: Message[Any], timeout: float | timedelta | None, settings: Settings) -> float:
    """Return how long a call of a message waits; raises InvalidArguments if it cannot be called."""
    for option in ("delay", "at", "expires", "resend"):
        if getattr(message, option) is not None:
            raise InvalidArguments(f"call() does not accept a message with {option}: a caller waits for its reply.")
    return settings.call_timeout if timeout is None else duration(timeout, "timeout")


def may_send_again(error: AmqpWorkerError | None, until: float) -> bool:
    """Return whether a message was not sent because its publisher had just been closed, and there is time for another."""
    return was_closed_before(error) and time.monotonic() < until


def raise_unless_ready(check: PendingPublish, publisher: PublishCore, timeout: float) -> None:
    """Return if the broker has returned what no queue takes; raises the error if it has not, or accepts no more."""
    if check.returned is not None or check.error is None:
        # RabbitMQ reports an alarm only to those who publish, and still takes what it has read by then.
        if publisher.is_blocked:
            raise not_written(blocked=True, timeout=timeout)
        return
    if isinstance(check.error, Unconfirmed):
        raise NotConnected(f"RabbitMQ did not respond within {timeout:g} s.")
    raise check.error


def was_closed_before(error: AmqpWorkerError | None) -> bool:
    """Return whether a message was not sent because its publisher had just been closed."""
    return isinstance(error, NotConnected) and error.args == (CLOSED,)


def with_message(error: AmqpWorkerError, message: Message) -> AmqpWorkerError:
    """Return an error with the message that it is about."""
    if isinstance(error, SendError):
        error.message = message
    return error


def no_reply(message: Message, timeout: float, consumers: int | None) -> str:
    """Return the text of a call that timed out; `consumers` of its queue, None if that is not known."""
    text = f"Task {message.task!r} did not reply within {timeout:g} s (id {message.id})"
    if consumers == 0:
        return (
            f"{text}: queue {message.queue!r} has no consumers: no worker runs its tasks, it is paused, or its workers cannot "
            "store results."
        )
    return f"{text}."


def refuse_io_thread(message: Message | None) -> None:
    """Raise NotConnected in an I/O thread of ours, which would wait for itself."""
    if in_io_thread():
        name = threading.current_thread().name
        raise NotConnected(
            f"Nothing can be sent from the thread {name!r}: it is the I/O thread of a connection to RabbitMQ and would wait "
            "for itself. A finalizer (__del__), a log filter or a callback that runs there has to leave sending to "
            "another thread. The message was not sent.",
            message,
        )
