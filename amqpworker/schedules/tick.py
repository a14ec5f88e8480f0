"""The message that a schedule sends for one of its times, and its id."""

from __future__ import annotations

from hashlib import sha1
from typing import Any
from uuid import NAMESPACE_URL

from amqpworker.model.headers import NOMINAL, SCHEDULE, time_text
from amqpworker.model.message import VARIANT, Message, new_id
from amqpworker.schedules.definition import Schedule


def tick_id(namespace: str, scheduler: str, schedule: str, nominal: int) -> str:
    """Return the id of a tick, the same on each host: a UUIDv5 (docs/wire.md)."""
    # As `uuid.uuid5` calculates it, in a fifth of the time: a leader may send thousands of ticks in a second.
    name = f"{namespace}:{scheduler}:{schedule}:{time_text(nominal)}"
    digits = sha1(NAMESPACE_URL.bytes + name.encode(), usedforsecurity=False).hexdigest()
    return f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-{VARIANT[digits[16]]}{digits[17:20]}-{digits[20:32]}"


def tick_message(schedule: Schedule, namespace: str, scheduler: str, nominal: int) -> Message[Any]:
    """Return the message of a tick; its jitter follows from its id, so that it is the same if the tick is sent twice."""
    task_id = tick_id(namespace, scheduler, schedule.name, nominal)
    delay = 0.0
    if schedule.jitter:
        # 32 bits of the hash; whole milliseconds, never more than the jitter
        delay = int(schedule.jitter * 1000 * int(task_id[:8], 16) / 2**32) / 1000
    return _message(schedule, nominal, task_id, delay or None)


def run_now_message(schedule: Schedule, nominal: int) -> Message[Any]:
    """Return the message of a run that a user asked for: it has an id of its own, and no jitter."""
    return _message(schedule, nominal, new_id(), None)


def _message(schedule: Schedule, nominal: int, task_id: str, delay: float | None) -> Message[Any]:
    # Not by `dataclasses.replace`, which takes ten times as long.
    template = schedule.message
    headers = {**template.headers, SCHEDULE: schedule.name, NOMINAL: time_text(nominal)}
    return Message(
        template.task,
        template.queue,
        template.body,
        task_id,
        headers,
        delay,
        expires=template.expires,
        resend=template.resend,
    )
