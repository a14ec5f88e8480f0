"""
Sending many messages: how many are published before their confirms arrive.

Decides the window: small at first, larger while confirms arrive soon, smaller if they are slow, so that what is written is
confirmed before its deadline on a slow network too. The producer publishes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from amqpworker.broker.pending_publish import PendingPublish
from amqpworker.errors import AmqpWorkerError, BatchFailed, SendError, Unconfirmed
from amqpworker.model.message import Message

MAX_MESSAGES = 2000
MAX_BYTES = 16 * 1024 * 1024
FIRST_MESSAGES = 256
FIRST_BYTES = 256 * 1024
# Parts of `send_timeout`: a window whose oldest message waited for less is doubled, one for more is halved.
GROW_BELOW, SHRINK_ABOVE = 1 / 16, 1 / 4
BURST = 128
BURST_SECONDS = 0.005


class InFlight(Protocol):
    """A message that was published, and that is waited for by a thread or by a coroutine."""

    @property
    def done(self) -> bool:
        """Whether it has ended."""

    @property
    def error(self) -> AmqpWorkerError | None:
        """The error that it ended with."""

    @property
    def size(self) -> int:
        """How many bytes count against the bounds."""


_Sent = TypeVar("_Sent")
_InFlight = TypeVar("_InFlight", bound=InFlight)


@dataclass(slots=True)
class FailedToPublish:
    """A message that could not be published."""

    error: AmqpWorkerError | None
    done: bool = True
    size: int = 0

    def abandon(self) -> None:
        """It has ended."""


Publish: TypeAlias = Callable[[Message, bool], _InFlight]
"""Publishes a message, at once if it is urgent, without waiting for its confirm; raises if it cannot be sent."""
Ended: TypeAlias = tuple[Message, AmqpWorkerError | None]


class Window(Generic[_InFlight]):
    """The messages that were published and not yielded yet, in order, and how many there may be."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._held: deque[tuple[Message, _InFlight | FailedToPublish, float]] = deque()
        self._bytes = 0
        self.max_messages = FIRST_MESSAGES
        self.max_bytes = FIRST_BYTES

    def __len__(self) -> int:
        return len(self._held)

    def add(self, message: Message, in_flight: _InFlight | FailedToPublish, now: float) -> bool:
        """Add a message that was published now (monotonic); return whether to wait for confirms before the next."""
        held = self._held
        held.append((message, in_flight, now))
        self._bytes += in_flight.size
        return len(held) >= self.max_messages or self._bytes >= self.max_bytes

    @property
    def is_full(self) -> bool:
        """Whether to wait for confirms before the next one."""
        return len(self._held) >= self.max_messages or self._bytes >= self.max_bytes

    @property
    def oldest(self) -> _InFlight | FailedToPublish | None:
        """The oldest one, if there is one."""
        return self._held[0][1] if self._held else None

    def pop(self) -> tuple[Message, _InFlight | FailedToPublish]:
        """Remove and return the oldest one."""
        message, in_flight, _ = self._held.popleft()
        self._bytes -= in_flight.size
        return message, in_flight

    def pop_ended(self) -> tuple[Message, _InFlight | FailedToPublish] | None:
        """Remove and return the oldest one, if it has ended."""
        held = self._held
        return self.pop() if held and held[0][1].done else None

    def to_wait_for(self) -> tuple[_InFlight | FailedToPublish, _InFlight | FailedToPublish]:
        """Return what to wait for until the first half is confirmed: one wake-up for all of it."""
        held = self._held
        return held[len(held) // 2][1], held[0][1]

    def adapt(self, now: float) -> None:
        """Make it larger or smaller by the age of the oldest one now (monotonic)."""
        age = now - self._held[0][2]
        if age < self._timeout * GROW_BELOW:
            self.max_messages = min(MAX_MESSAGES, self.max_messages * 2)
            self.max_bytes = min(MAX_BYTES, self.max_bytes * 2)
        elif age > self._timeout * SHRINK_ABOVE:
            self.max_messages = max(1, self.max_messages // 2)
            self.max_bytes = max(1, self.max_bytes // 2)


class Batch(Generic[_InFlight]):
    """
    The messages of one batch, published as they are read: it decides what to wait for, and the caller waits.

    `publish` publishes a message, at once if it is urgent, without waiting for its confirm. `timeout` is how long each may wait.
    """

    def __init__(self, publish: Publish[_InFlight], timeout: float) -> None:
        self._publish = publish
        self._window: Window[_InFlight] = Window(timeout)
        self._unwritten = 0
        self._next_write = 0.0
        self.was_urgent = False
        """Whether the last message was published at once, with all before it."""

    def add(self, message: Message) -> bool:
        """Publish a message; return whether to wait for `to_wait_for` before the next."""
        # The first of a burst is written at once, then many in one write; a slow source never waits.
        self._unwritten += 1
        now = time.monotonic()
        self.was_urgent = urgent = self._unwritten >= BURST or now >= self._next_write
        if urgent:
            self._unwritten, self._next_write = 0, now + BURST_SECONDS
        in_flight: _InFlight | FailedToPublish
        try:
            in_flight = self._publish(message, urgent)
        except AmqpWorkerError as error:
            in_flight = FailedToPublish(error)
        return self._window.add(message, in_flight, now)

    def __len__(self) -> int:
        return len(self._window)

    @property
    def is_full(self) -> bool:
        """Whether to wait for `to_wait_for` before the next message."""
        return self._window.is_full

    @property
    def oldest(self) -> _InFlight | FailedToPublish | None:
        """The oldest message, if there is one."""
        return self._window.oldest

    def to_wait_for(self) -> tuple[_InFlight | FailedToPublish, _InFlight | FailedToPublish]:
        """Return what to wait for, in this order; `adapt` is called after that, while the second half is in flight."""
        return self._window.to_wait_for()

    def adapt(self) -> None:
        """Make the window larger or smaller, by how long its oldest message has waited."""
        self._window.adapt(time.monotonic())

    def ended(self) -> Iterator[Ended]:
        """Remove and yield the oldest messages that have ended."""
        while (popped := self._window.pop_ended()) is not None:
            yield popped[0], popped[1].error

    def rest(self) -> Iterator[tuple[Message, _InFlight | FailedToPublish]]:
        """Remove and yield all others, each of which is to be waited for."""
        while len(self._window):
            yield self._window.pop()


def send_each(
    publish: Publish[PendingPublish], wake: Callable[[], None], messages: Iterable[Message], timeout: float
) -> Iterator[Ended]:
    """
    Send messages as they are read, in a bounded window; yield each with its error, in order, as soon as it has ended.

    `wake` writes everything that was published now. What reading `messages` raises is raised after those before have
    been yielded.
    """
    batch = Batch(publish, timeout)
    reading = iter(messages)
    failure: Exception | None = None
    while True:
        yield from batch.ended()
        try:
            message = next(reading)
        except StopIteration:
            break
        except Exception as error:  # noqa: BLE001 - raised again below
            failure = error
            break
        if batch.add(message):
            for in_flight in batch.to_wait_for():
                _wait_for(in_flight, wake)
            batch.adapt()
    for message, in_flight in batch.rest():
        _wait_for(in_flight, wake)
        yield message, in_flight.error
    if failure is not None:
        raise failure


def outcome_of(error: AmqpWorkerError, message: Message[Any]) -> SendError:
    """Return the error of one message of a batch, which does not stop the others."""
    if not isinstance(error, SendError):
        cause, error = error, SendError(str(error))
        error.__cause__ = cause
    error.message = message
    return error


def many_sent(outcomes: Sequence[_Sent | SendError]) -> list[_Sent]:
    """Return what was sent; raises BatchFailed if some messages were not."""
    failed = [outcome for outcome in outcomes if isinstance(outcome, SendError)]
    sent = [outcome for outcome in outcomes if not isinstance(outcome, SendError)]
    if failed:
        raise failed_batch(failed, sent)
    return sent


def add_note_of_sent(error: Exception, method: str, outcomes: list[Any]) -> None:
    """Note on what reading messages has raised how many had been sent before."""
    failed = sum(isinstance(outcome, SendError) for outcome in outcomes)
    error.add_note(f"{method}: {len(outcomes) - failed} messages had been sent before, and {failed} had failed.")


def failed_batch(failed: Sequence[SendError], sent: Sequence[Any]) -> BatchFailed:
    """Return the error of a batch of which some failed; those not confirmed may have arrived."""
    count = len(failed) + len(sent)
    unknown = sum(1 for one in failed if isinstance(one, Unconfirmed))
    unsent = len(failed) - unknown
    parts = []
    if unsent:
        parts.append(f"{unsent} of {count} messages {_were(unsent)} not sent")
    if unknown:
        which = f"and {unknown}" if unsent else f"{unknown} of {count} messages"
        parts.append(f"{which} {_were(unknown)} not confirmed{'' if unsent else ','} and may have arrived")
    return BatchFailed(", ".join(parts), failed, sent)


def _were(count: int) -> str:
    return "was" if count == 1 else "were"


def _wait_for(in_flight: PendingPublish | FailedToPublish, wake: Callable[[], None]) -> None:
    if not (in_flight.done or isinstance(in_flight, FailedToPublish)):
        wake()
        in_flight.wait()
