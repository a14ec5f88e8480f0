"""The options of one message: which values are valid; `envelope` decides what they are on the wire."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from amqpworker.errors import InvalidArguments
from amqpworker.model.headers import HARD_LIMIT, TIME_LIMIT, is_reserved, limit_value
from amqpworker.model.message import MAX_SHORT_BYTES, HeaderValue, Message, fits_short_string, new_id, plain
from amqpworker.policies.durations import duration, seconds_until, timestamp_of

LATE_BEFORE_DUE = "A message that expires before its delay is over never runs: give a later `expires`."


@dataclass(frozen=True, slots=True)
class Options:
    """The options of one message, checked; durations are seconds."""

    delay: float | None = None
    at: datetime | None = None
    expires: float | datetime | None = None
    id: str | None = None
    queue: str | None = None
    headers: Mapping[str, HeaderValue] = field(default_factory=dict)
    timeout: float | None = None
    resend: bool | None = None


def check_options(**given: Any) -> Options:
    """Return the options that were given, checked; raises InvalidArguments that names the one which is not valid."""
    checked: dict[str, Any] = {
        name: check(value) for name, check in CHECKS.items() if (value := given.get(name)) is not None
    }
    if "delay" in checked and "at" in checked:
        raise InvalidArguments("options(delay=…, at=…): give one of them, not both.")
    timed = [name for name in ("delay", "at", "expires", "resend") if name in checked]
    if "timeout" in checked and timed:
        raise InvalidArguments(f"options(timeout=…, {timed[0]}=…): `timeout` is for call, {timed[0]!r} for send.")
    _move_limits_to_headers(checked)
    options = Options(**checked)
    if "expires" in checked and _never_runs(options, time.time()):
        raise InvalidArguments(LATE_BEFORE_DUE)
    return options


def message_of(task: str, queue: str, body: bytes, options: Options, max_body: int) -> Message:
    """Return the message of a task with these options; raises InvalidArguments if its body is too large."""
    if len(body) > max_body:
        raise InvalidArguments(
            f"The arguments of task {task!r} are {len(body)} bytes of JSON, more than the {max_body} "
            f"that AMQPWORKER_MAX_BODY allows: send a reference to large data instead."
        )
    return Message(
        task,
        options.queue or queue,
        body,
        options.id or new_id(),
        options.headers,
        options.delay,
        options.at,
        options.expires,
        options.resend,
    )


def _move_limits_to_headers(checked: dict[str, Any]) -> None:
    """Put the time limits of a message where they travel; raises InvalidArguments if the hard one is the shorter."""
    soft, hard = checked.pop("time_limit", None), checked.pop("hard_limit", None)
    if soft is not None and hard is not None and hard < soft:
        raise InvalidArguments(
            f"options(time_limit=…, hard_limit=…): the hard limit of {hard:g} s must not be shorter than the time limit of "
            f"{soft:g} s."
        )
    limits = {name: limit_value(value) for name, value in ((TIME_LIMIT, soft), (HARD_LIMIT, hard)) if value is not None}
    if limits:
        checked["headers"] = {**checked.get("headers", {}), **limits}


def _never_runs(options: Options, now: float) -> bool:
    """Return whether a message with these options always expires before it is due."""
    expires, delay = options.expires, options.delay
    if isinstance(expires, datetime):
        if options.at is not None:
            return timestamp_of(options.at, "at") >= timestamp_of(expires, "expires")
        return bool(delay) and now + (delay or 0.0) >= timestamp_of(expires, "expires")
    # How long it waits until `at` depends on when it is sent.
    return bool(delay) and expires is not None and expires <= (delay or 0.0)


def _check_at(value: datetime) -> datetime:
    # Checked again when it is sent, which may be later.
    seconds_until(value, time.time())
    return value


def _check_expires(value: float | timedelta | datetime) -> float | datetime:
    if isinstance(value, datetime):
        timestamp_of(value, "expires")
        return value
    return duration(value, "expires")


def check_timeout(value: float | timedelta) -> float:
    """Return a timeout in seconds, above zero."""
    return _above_zero(value, "timeout")


def _above_zero(value: float | timedelta, option: str) -> float:
    seconds = duration(value, option)
    if seconds == 0:
        raise InvalidArguments(f"options({option}=…): it must be more than zero seconds.")
    return seconds


def _check_resend(value: Any) -> bool:
    if not isinstance(value, bool):
        raise InvalidArguments(f"options(resend={value!r}): it must be True or False.")
    return value


def _check_id(value: Any) -> str:
    if not fits_short_string(value):
        raise InvalidArguments(f"options(id=…): it must be a string of 1 to {MAX_SHORT_BYTES} bytes of UTF-8.")
    return plain(value)  # type: ignore[no-any-return]


def _check_queue(value: Any) -> str:
    if not fits_short_string(value):
        raise InvalidArguments(
            f"options(queue=…): it must be the name of a queue, 1 to {MAX_SHORT_BYTES} bytes of UTF-8."
        )
    return plain(value)  # type: ignore[no-any-return]


def _check_headers(value: Any) -> Mapping[str, HeaderValue]:
    if not isinstance(value, Mapping):
        raise InvalidArguments("options(headers=…): it must be a mapping of names to values.")
    for name in value:
        if not isinstance(name, str) or not name:
            raise InvalidArguments(
                f"options(headers=…): the name of a header must be a non-empty string, got {name!r:.60}."
            )
        if is_reserved(name):
            raise InvalidArguments(
                f"options(headers=…): {name!r} is reserved: no header may begin with 'x-' or 'aw-', or be CC or BCC."
            )
    return {plain(name): plain(part) for name, part in value.items()}


CHECKS: dict[str, Callable[[Any], Any]] = {
    "delay": lambda value: duration(value, "delay"),
    "at": _check_at,
    "expires": _check_expires,
    "id": _check_id,
    "queue": _check_queue,
    "headers": _check_headers,
    "timeout": check_timeout,
    "resend": _check_resend,
    "time_limit": lambda value: _above_zero(value, "time_limit"),
    "hard_limit": lambda value: _above_zero(value, "hard_limit"),
}
