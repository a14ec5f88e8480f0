"""A run that has failed and is repeated, as hooks see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from amqpworker.model.message import Headers
    from amqpworker.worker.context import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried:
    """
    A run that has failed, and whose message is delivered again after `delay` seconds; a text is "" if it is not known.

    `error_type`, `error` and `traceback` are as in a dead letter. `attempt` is that of the run which has failed.
    """

    run: Run
    delay: float
    error_type: str
    error: str
    traceback: str

    @property
    def id(self) -> str:
        """The id of the message."""
        return self.run.id

    @property
    def task(self) -> str:
        """The task's name."""
        return self.run.task

    @property
    def queue(self) -> str:
        """The queue that the message came from."""
        return self.run.queue

    @property
    def attempt(self) -> int:
        """Which attempt has failed."""
        return self.run.attempt

    @property
    def headers(self) -> Headers:
        """The headers that the sender gave, as a copy."""
        return self.run.headers
