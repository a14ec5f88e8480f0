"""
Sending many messages: how many are published before their confirms arrive.

Decides the window: small at first, larger while confirms arrive soon, smaller if they are slow, so that what is written is
confirmed before its deadline on a slow network too. The producer publishes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from amqpworker.errors import AmqpWorkerError, BatchFailed, SendError, Unconfirmed
from amqpworker.model.message import Message

MOST_MESSAGES = 2000
MOST_BYTES = 16 * 1024 * 1024
FIRST_MESSAGES = 256
FIRST_BYTES = 256 * 1024
# Parts of `send_timeout`: a window whose oldest message waited for less is doubled, one for more is halved.
SOON, LATE = 1 / 16, 1 / 4
BURST = 128
BURST_SECONDS = 0.005


class Publishing(Protocol):
    """A publication that was published."""

    done: bool
    error: AmqpWorkerError | None
    size: int

    def wait(self) -> None:
        """Wait until it has ended."""


class PublishesMessages(Protocol):
    """What publishes messages."""

    def publish(self, message: Message, urgent: bool) -> Publishing:
        """
        Publish a message without waiting for its confirm.

        Raises:
            AmqpWorkerError: it cannot be sent.
        """

    def wake(self) -> None:
        """Have everything that was published written now."""


@dataclass(slots=True)
class NotPublished:
    """A message that could not be published."""

    error: AmqpWorkerError | None
    done: bool = True
    size: int = 0

    def wait(self) -> None:
        """It has ended."""


class Window:
    """The messages that were published and not yielded yet, in order, and how many there may be."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._held: deque[tuple[Message, Publishing, float]] = deque()
        self._bytes = 0
        self.most_messages = FIRST_MESSAGES
        self.most_bytes = FIRST_BYTES

    def __len__(self) -> int:
        return len(self._held)

    def add(self, message: Message, publishing: Publishing, now: float) -> bool:
        """Add a message that was published now (monotonic); return whether to wait for confirms before the next."""
        held = self._held
        held.append((message, publishing, now))
        self._bytes += publishing.size
        return len(held) >= self.most_messages or self._bytes >= self.most_bytes

    @property
    def middle(self) -> Publishing:
        """The message in the middle: while the first half is awaited, the second is in flight."""
        return self._held[len(self._held) // 2][1]

    @property
    def first(self) -> Publishing:
        """The oldest one."""
        return self._held[0][1]

    def pop(self) -> tuple[Message, Publishing]:
        """Remove and return the oldest one."""
        message, publishing, _ = self._held.popleft()
        self._bytes -= publishing.size
        return message, publishing

    def pop_ended(self) -> tuple[Message, AmqpWorkerError | None] | None:
        """Remove and return the oldest one with its error, if it has ended."""
        held = self._held
        if not held or not held[0][1].done:
            return None
        message, publishing, _ = held.popleft()
        self._bytes -= publishing.size
        return message, publishing.error

    def adapt(self, now: float) -> None:
        """Make it larger or smaller by the age of the oldest one now (monotonic)."""
        age = now - self._held[0][2]
        if age < self._timeout * SOON:
            self.most_messages = min(MOST_MESSAGES, self.most_messages * 2)
            self.most_bytes = min(MOST_BYTES, self.most_bytes * 2)
        elif age > self._timeout * LATE:
            self.most_messages = max(1, self.most_messages // 2)
            self.most_bytes = max(1, self.most_bytes // 2)


def send_each(
    producer: PublishesMessages, messages: Iterable[Message], timeout: float
) -> Iterator[tuple[Message, AmqpWorkerError | None]]:
    """
    Send messages as they are read, in a bounded window; yield each with its error, in order, as soon as it has ended.

    `timeout` is how long each may wait for its confirm.

    Raises:
        Exception: what reading `messages` raised, after those before have been yielded.
    """
    window = Window(timeout)
    reading = iter(messages)
    failure: Exception | None = None
    unwoken = 0
    next_wake = 0.0
    while True:
        while (outcome := window.pop_ended()) is not None:
            yield outcome
        try:
            message = next(reading)
        except StopIteration:
            break
        except Exception as error:  # noqa: BLE001 - raised again below
            failure = error
            break
        # The first of a burst is written at once, then many in one write; a slow source never waits.
        unwoken += 1
        now = time.monotonic()
        urgent = unwoken >= BURST or now >= next_wake
        if urgent:
            unwoken, next_wake = 0, now + BURST_SECONDS
        if window.add(message, _published(producer, message, urgent), now):
            _wait_for_room(producer, window)
    while len(window):
        message, ended = window.pop()
        _wait_for(producer, ended)
        yield message, ended.error
    if failure is not None:
        raise failure


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
    """Return the verb for this number."""
    return "was" if count == 1 else "were"


def _published(producer: PublishesMessages, message: Message, urgent: bool) -> Publishing:
    """Publish a message; one that cannot be sent at all has ended with its error."""
    try:
        return producer.publish(message, urgent)
    except AmqpWorkerError as error:
        return NotPublished(error)


def _wait_for_room(producer: PublishesMessages, window: Window) -> None:
    """Wait until the first half is confirmed: one wake-up for all of it, while the second half is in flight."""
    _wait_for(producer, window.middle)
    _wait_for(producer, window.first)
    window.adapt(time.monotonic())


def _wait_for(producer: PublishesMessages, publishing: Publishing) -> None:
    """Wait until a publication has ended; have everything before it written now."""
    if not publishing.done:
        producer.wake()
        publishing.wait()
