"""What happens to a scheduler, as a closed set of frozen values: other threads report it, the main thread acts on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from amqpworker.broker.connection_problem import ConnectionProblem
from amqpworker.errors import AmqpWorkerError
from amqpworker.model.message import Delivery


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The broker has confirmed the consumer: a term begins."""

    term: int


@dataclass(frozen=True, slots=True)
class Delivered:
    """A message has arrived: the broker has made this scheduler the active one."""

    term: int
    delivery: Delivery


@dataclass(frozen=True, slots=True)
class TermEnded:
    """The subscription was lost, or could not be made."""

    reason: AmqpWorkerError | ConnectionProblem


@dataclass(frozen=True, slots=True)
class TickEnded:
    """A tick was confirmed, or refused for the reason `error`."""

    term: int
    schedule: str
    nominal: int
    error: str | None


@dataclass(frozen=True, slots=True)
class TokenEnded:
    """A token was confirmed, or refused for the reason `error`."""

    term: int
    message_id: str
    error: str | None


@dataclass(frozen=True, slots=True)
class LeaderAnswered:
    """The leader has answered who it is."""

    term: int
    body: bytes


@dataclass(frozen=True, slots=True)
class StoreAnswered:
    """The result store has answered whether the tasks of ticks have ended, None if that is not known."""

    term: int
    ended: Mapping[tuple[str, int], bool | None]


@dataclass(frozen=True, slots=True)
class StopRequested:
    """A signal, or the end of the supervisor, is to stop this process."""


Event: TypeAlias = (
    Subscribed | Delivered | TermEnded | TickEnded | TokenEnded | LeaderAnswered | StoreAnswered | StopRequested
)
