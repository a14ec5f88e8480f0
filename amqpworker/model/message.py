"""Messages as values: what a user sends, what goes out, what comes in, and its properties."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeGuard

from typing_extensions import TypeVar

if TYPE_CHECKING:
    from amqpworker.broker.consumer_channel import ConsumerChannel

HeaderValue: TypeAlias = Any
"""What an AMQP field table holds: None, bool, int, float, Decimal, str, bytes, datetime, list, dict."""

Headers: TypeAlias = dict[str, HeaderValue]

JSON = "application/json"
PERSISTENT = 2
# Direct reply-to (https://www.rabbitmq.com/docs/direct-reply-to).
REPLY_TO = "amq.rabbitmq.reply-to"

MAX_SHORT_BYTES = 255
"""Bytes of UTF-8 that a short string of AMQP holds: names of exchanges, queues and tasks, routing keys, ids."""


def fits_short_string(value: object) -> TypeGuard[str]:
    """Return whether AMQP can carry a value as a name or an id: text that is neither empty nor too long."""
    if not isinstance(value, str):
        return False
    try:
        return 0 < len(value.encode()) <= MAX_SHORT_BYTES
    except UnicodeEncodeError:  # a lone surrogate
        return False


def plain(name: Any) -> Any:
    """Return a name as a plain `str`: a member of a `(str, Enum)` would be formatted as `Queues.WORK` in other names."""
    return str.__str__(name) if isinstance(name, str) else name


@dataclass(slots=True, kw_only=True)
class Properties:
    """
    The AMQP basic properties; an absent one is `None`.

    The codec's decoder makes instances without calling the class and sets every field itself: a new field goes there too.
    """

    content_type: str | None = None
    content_encoding: str | None = None
    headers: Headers | None = None
    delivery_mode: int | None = None
    priority: int | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    expiration: str | None = None
    message_id: str | None = None
    timestamp: int | None = None
    type: str | None = None
    user_id: str | None = None
    app_id: str | None = None

    def present(self) -> dict[str, Any]:
        """Return the properties that are not absent, by name."""
        return {name: value for name in PROPERTY_NAMES if (value := getattr(self, name)) is not None}

    def __repr__(self) -> str:
        return f"Properties({', '.join(f'{name}={value!r}' for name, value in self.present().items())})"


PROPERTY_NAMES = tuple(each.name for each in fields(Properties))


@dataclass(slots=True)
class Publication:
    """One message on its way out, with its exchange and routing key."""

    exchange: str
    routing_key: str
    properties: Properties
    body: bytes
    mandatory: bool = True


@dataclass(slots=True, eq=False)
class Delivery:
    """
    One message on its way in, as a queue delivered it.

    `problem` names what of its properties could not be read ("" if all could): such a message is `malformed`.
    `consumer_tag` and `channel_number` show which consumer received it. The codec's decoder makes instances without calling
    the class and sets all fields up to `queue` itself: a new one goes there too. The others are set by the `channel` of the
    consumer, on which it is claimed and settled: it `arrived` then (monotonic). If it `is_suspect`, it runs in an isolated
    process, because it may have crashed one.
    """

    tag: int
    redelivered: bool
    exchange: str
    routing_key: str
    properties: Properties
    body: bytes
    problem: str = ""
    consumer_tag: str = ""
    channel_number: int = 0
    queue: str = field(init=False)
    channel: ConsumerChannel = field(init=False, repr=False)
    arrived: float = field(init=False, repr=False)
    is_suspect: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.queue = self.routing_key


# Covariant: a list of messages of several tasks is a list of messages of what any of them returns.
R_co = TypeVar("R_co", covariant=True, default=Any)


@dataclass(frozen=True, slots=True)
class Message(Generic[R_co]):
    """
    One request to run a task that returns an `R`: validated, not yet sent.

    `delay` (seconds) and `expires` (seconds, or an aware datetime) count from the sending; `at` is an aware datetime.
    `resend` is whether it is published again if its confirm is lost; `None` means as in the app's settings.
    `first_sent` is when it was sent first, in milliseconds since the epoch: sending sets it, once. A message that is
    sent again after an error keeps it; a copy that `dataclasses.replace` makes is another message.
    """

    task: str
    queue: str
    body: bytes
    id: str
    headers: Mapping[str, HeaderValue] = field(default_factory=dict)
    delay: float | None = None
    at: datetime | None = None
    expires: float | datetime | None = None
    resend: bool | None = None
    first_sent: int | None = field(default=None, init=False, repr=False, compare=False)

    def dump(self) -> dict[str, Any]:
        """
        Return the message as a dictionary of JSON's types, for an outbox; `load` returns the same message again.

        Raises:
            InvalidArguments: its body is not UTF-8, or a header has a value that AMQP does not have.
        """
        from amqpworker.model.message_dump import dump_message

        return dump_message(self)

    @classmethod
    def load(cls, dumped: Mapping[str, Any]) -> Message[Any]:
        """
        Return the message from which `dump` made this.

        Raises:
            InvalidArguments: it is not the dump of a message; the text names the key.
        """
        from amqpworker.model.message_dump import load_message

        return load_message(dumped)

    def begin_sending(self, now: int) -> int:
        """Return when it was sent first: `now` (milliseconds since the epoch), unless it was sent before."""
        first = self.first_sent
        if first is None:
            first = now
            object.__setattr__(self, "first_sent", now)
        return first


# A table, since an id is made for each message.
VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
"""A hex digit of a UUID's variant, by any digit: its two highest bits are 10."""


def new_id() -> str:
    """Return a new task id: a UUIDv7, so that ids sort by time (RFC 9562 §5.7)."""
    when = f"{time.time_ns() // 1_000_000:012x}"
    random = os.urandom(10).hex()
    return f"{when[:8]}-{when[8:]}-7{random[:3]}-{VARIANT[random[3]]}{random[4:7]}-{random[7:19]}"
