"""How a delivery ends: a closed set of frozen values, which `worker.outcomes` makes and `worker.settle` acts on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong, as text: no exception object crosses a process."""

    error_type: str = ""
    text: str = ""
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    """
    The task returned; `value` is its result as JSON, `None` if no caller and no store wants it.

    `refusal` is why those who want the result cannot have it: JSON does not have what the task returned, or it is too large.
    """

    value: bytes | None = None
    refusal: Failure | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """Run again as the next attempt, no sooner than `delay` seconds from now, in another `queue` if one is given."""

    delay: float
    failure: Failure
    queue: str | None = None


@dataclass(frozen=True, slots=True)
class Snooze:
    """
    Run again as the same attempt, no sooner than `delay` seconds from now.

    `crashes` is how often the message has crashed a process by now, 0 if this is about something else; `queue` is as in `Retry`.
    """

    delay: float
    failure: Failure
    crashes: int = 0
    queue: str | None = None


@dataclass(frozen=True, slots=True)
class Postpone:
    """Deliver again in `delay` seconds: the task did not run, for this `reason`, and no attempt is counted."""

    delay: float
    reason: str


@dataclass(frozen=True, slots=True)
class Deferred:
    """
    Deliver the message again in `delay` seconds as it is: it cannot run here yet, for this `reason`.

    No attempt is counted, and its time stays. `unknown_since` (milliseconds since the epoch) is when a worker first did not
    know its task; `None` leaves the header for that as it is.
    """

    delay: float
    reason: str
    unknown_since: int | None = None


@dataclass(frozen=True, slots=True)
class Dead:
    """
    Never run again: to the dead-letter queue with `reason` (wire contract, `aw-dead-reason`).

    `crashes` is as in `Snooze`. If it `is_expected`, the task raised an exception that it names in `throws`.
    """

    reason: str
    failure: Failure = Failure()
    crashes: int = 0
    is_expected: bool = False


@dataclass(frozen=True, slots=True)
class Requeue:
    """Return the message to its queue: it did not run here, or its outcome cannot be settled now."""


@dataclass(frozen=True, slots=True)
class Republish:
    """Replace the message by a copy in the same queue whose deliveries count from zero: its broker would drop it soon."""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Acknowledge without a dead letter: the task was cancelled; `failure` is what its caller and the result store get."""

    failure: Failure = Failure()


@dataclass(frozen=True, slots=True)
class Discarded:
    """Acknowledge, and only log the `reason`: the caller of a call no longer waits for the reply."""

    reason: str


@dataclass(frozen=True, slots=True)
class AlreadyDone:
    """Acknowledge without running: the result store has that the task is done, with this `reply`, which a caller gets."""

    reply: bytes


Outcome: TypeAlias = (
    Done | Retry | Snooze | Postpone | Deferred | Dead | Cancelled | Requeue | Republish | Discarded | AlreadyDone
)
