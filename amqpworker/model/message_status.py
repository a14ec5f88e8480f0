"""What is known of a message whose results are stored, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from amqpworker.model.progress import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """
    How far a message has come, by what the result store has.

    `state` is `pending` if nothing is stored: its task has not ended, or what was stored has expired. It is `sent` or `running`
    only for tasks with `track=True`; else `done`, `failed` or `cancelled`. `attempt` counts from 1, and is 0 if it is not known.
    `worker` is the process that runs the task, or ran it, as logs name it. Times are in UTC, None if they are not known;
    `stored_at` is when this was stored. `progress` is what the task has reported, None if it has reported nothing.
    """

    state: str
    attempt: int = 0
    worker: str = ""
    sent_at: datetime | None = None
    started_at: datetime | None = None
    stored_at: datetime | None = None
    progress: Progress | None = None
