"""
Sending many messages: how far ahead of the confirms they are read and written.

Decides the window: small at first, larger while confirms come soon, smaller if they are slow, so that what is written is
confirmed before its deadline, however slow the network is. Publishing is left to the producer.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from amqpworker.errors import AmqpWorkerError, BatchFailed, SendError, Unconfirmed
from amqpworker.model.message import Message

__all__ = ["MOST_MESSAGES", "Window", "failed_batch", "send_each"]

MOST_MESSAGES = 2000
MOST_BYTES = 16 * 1024 * 1024
FIRST_MESSAGES = 256
FIRST_BYTES = 256 * 1024
# Parts of `send_timeout`: a window whose oldest message waited for less is doubled, one for more is halved.
SOON, LATE = 1 / 16, 1 / 4
BURST = 128
BURST_SECONDS = 0.005


class Underway(Protocol):
    """A publication on its way."""

    done: bool
    error: AmqpWorkerError | None
    size: int

    def wait(self) -> None:
        """Wait until it has ended."""


class Begins(Protocol):
    """Who puts messages on their way."""

    def begin(self, message: Message, urgent: bool) -> Underway:
        """
        Put a message on its way.

        Raises:
            AmqpWorkerError: it cannot be sent.
        """

    def wake(self) -> None:
        """Have everything that was put on its way written now."""


@dataclass(slots=True)
class NotBegun:
    """A message that could not be put on its way."""

    error: AmqpWorkerError | None
    done: bool = True
    size: int = 0

    def wait(self) -> None:
        """It has ended."""


class Window:
    """What was sent and is not told yet, in order, and how much that may be."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._held: deque[tuple[Message, Underway, float]] = deque()
        self._bytes = 0
        self.most_messages = FIRST_MESSAGES
        self.most_bytes = FIRST_BYTES

    def __len__(self) -> int:
        return len(self._held)

    def add(self, message: Message, underway: Underway, now: float) -> bool:
        """Take a message in that was put on its way now (monotonic); true if confirms are to be waited for before more."""
        held = self._held
        held.append((message, underway, now))
        self._bytes += underway.size
        return len(held) >= self.most_messages or self._bytes >= self.most_bytes

    @property
    def middle(self) -> Underway:
        """The message in the middle: while the first half is waited for, the second is on its way."""
        return self._held[len(self._held) // 2][1]

    @property
    def first(self) -> Underway:
        """The oldest one."""
        return self._held[0][1]

    def pop(self) -> tuple[Message, Underway]:
        """Take the oldest one out."""
        message, underway, _ = self._held.popleft()
        self._bytes -= underway.size
        return message, underway

    def pop_ended(self) -> tuple[Message, AmqpWorkerError | None] | None:
        """Take the oldest one out, if it is known how it ended."""
        held = self._held
        if not held or not held[0][1].done:
            return None
        message, underway, _ = held.popleft()
        self._bytes -= underway.size
        return message, underway.error

    def adapt(self, now: float) -> None:
        """Make it larger or smaller, by how long the oldest one took until now (monotonic)."""
        age = now - self._held[0][2]
        if age < self._timeout * SOON:
            self.most_messages = min(MOST_MESSAGES, self.most_messages * 2)
            self.most_bytes = min(MOST_BYTES, self.most_bytes * 2)
        elif age > self._timeout * LATE:
            self.most_messages = max(1, self.most_messages // 2)
            self.most_bytes = max(1, self.most_bytes // 2)


def send_each(
    producer: Begins, messages: Iterable[Message], timeout: float
) -> Iterator[tuple[Message, AmqpWorkerError | None]]:
    """
    Send messages as they are read, a bounded window ahead; yield how each ended, in order, as soon as it is known.

    `timeout` is how long each waits for its confirm.

    Raises:
        Exception: what reading `messages` raised, once it is told how those before ended.
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
        # The first of a burst goes at once, then one write for many; a slow source is never kept waiting.
        unwoken += 1
        now = time.monotonic()
        urgent = unwoken >= BURST or now >= next_wake
        if urgent:
            unwoken, next_wake = 0, now + BURST_SECONDS
        if window.add(message, begun(producer, message, urgent), now):
            wait_for_room(producer, window)
    while len(window):
        message, ended = window.pop()
        wait_for(producer, ended)
        yield message, ended.error
    if failure is not None:
        raise failure


def failed_batch(failed: Sequence[SendError], sent: Sequence[Any]) -> BatchFailed:
    """Return the error of a batch of which some failed; what is not confirmed may have arrived."""
    count = len(failed) + len(sent)
    unknown = sum(1 for one in failed if isinstance(one, Unconfirmed))
    unsent = len(failed) - unknown
    parts = []
    if unsent:
        parts.append(f"{unsent} of {count} messages {were(unsent)} not sent")
    if unknown:
        which = f"and {unknown}" if unsent else f"{unknown} of {count} messages"
        parts.append(f"{which} {were(unknown)} not confirmed{'' if unsent else ','} and may have arrived")
    return BatchFailed(", ".join(parts), failed, sent)


def were(count: int) -> str:
    """Return the verb for this number."""
    return "was" if count == 1 else "were"


def begun(producer: Begins, message: Message, urgent: bool) -> Underway:
    """Put a message on its way; what cannot be sent at all has ended with why."""
    try:
        return producer.begin(message, urgent)
    except AmqpWorkerError as error:
        return NotBegun(error)


def wait_for_room(producer: Begins, window: Window) -> None:
    """Wait until the first half is confirmed: one wake-up for all of them, while the second half is on its way."""
    wait_for(producer, window.middle)
    wait_for(producer, window.first)
    window.adapt(time.monotonic())


def wait_for(producer: Begins, underway: Underway) -> None:
    """Wait until a publication has ended, and have everything before it written now."""
    if not underway.done:
        producer.wake()
        underway.wait()
