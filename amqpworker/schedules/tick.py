"""The message that a schedule sends for one of its times, and its id."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

from amqpworker.model.headers import NOMINAL, SCHEDULE, time_text
from amqpworker.model.message import Message, new_id
from amqpworker.schedules.definition import Schedule


def tick_id(namespace: str, scheduler: str, schedule: str, nominal: int) -> str:
    """Return the id of a tick, the same on each host: a UUIDv5 (docs/wire.md)."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{namespace}:{scheduler}:{schedule}:{time_text(nominal)}"))


def tick_message(schedule: Schedule, namespace: str, scheduler: str, nominal: int) -> Message[Any]:
    """Return the message of a tick; its jitter follows from its id, so that it is the same if the tick is sent twice."""
    task_id = tick_id(namespace, scheduler, schedule.name, nominal)
    # 32 bits of the hash; whole milliseconds, which are never more than the jitter
    delay = int(schedule.jitter * 1000 * int(task_id[:8], 16) / 2**32) / 1000
    return replace(_message(schedule, nominal, task_id), delay=delay or None)


def run_now_message(schedule: Schedule, nominal: int) -> Message[Any]:
    """Return the message of a run that a user asked for: it has an id of its own, and no jitter."""
    return _message(schedule, nominal, new_id())


def _message(schedule: Schedule, nominal: int, task_id: str) -> Message[Any]:
    headers = {**schedule.message.headers, SCHEDULE: schedule.name, NOMINAL: time_text(nominal)}
    return replace(schedule.message, id=task_id, headers=headers)
