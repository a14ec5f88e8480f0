"""
The options of a worker process, and their limits.

Decides the defaults, and which threads serve which queue: prefetch follows threads. Checked once by the command line, and
passed on to each process as JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

__all__ = ["MOST_PREFETCH", "MOST_THREADS", "PoolOptions", "QueueOptions", "WorkerOptions", "repeated"]

PREFETCH_PER_THREAD = 4
MOST_PREFETCH = 65_535
MOST_THREADS = 10_000
MOST_SUSPECTS = 4


def repeated(names: Sequence[str]) -> str | None:
    """Return a name that is there more than once, None where each is there once."""
    return min((name for name in names if names.count(name) > 1), default=None)


class QueueOptions(BaseModel):
    """
    A queue to consume; in files a name may stand for it.

    With `threads` those serve it in each process, they serve nothing else, and no others do.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str = Field(min_length=1)
    threads: int | None = Field(None, ge=1, le=MOST_THREADS)
    prefetch: int | None = Field(None, ge=1, le=MOST_PREFETCH)

    @model_validator(mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        return {"name": given} if isinstance(given, str) else given


class PoolOptions(BaseModel):
    """What can be set for the processes of a pool, on the command line or in a file; durations are seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threads: int = Field(8, ge=1, le=MOST_THREADS)
    prefetch: int | None = Field(None, ge=1, le=MOST_PREFETCH)
    async_tasks: int = Field(100, ge=1, le=MOST_PREFETCH)
    isolated: int | None = Field(None, ge=1, le=MOST_THREADS)
    queues: tuple[QueueOptions, ...] = Field((), strict=False)
    drain_timeout: float | None = Field(None, ge=0, allow_inf_nan=False)
    log_tasks: Literal["all", "failed"] | None = None

    @field_validator("queues")
    @classmethod
    def _each_once(cls, queues: tuple[QueueOptions, ...]) -> tuple[QueueOptions, ...]:
        names = [queue.name for queue in queues]
        if (twice := repeated(names)) is not None:
            raise ValueError(f"queue {twice!r} is named twice")
        return queues

    @model_validator(mode="after")
    def _not_too_many(self) -> Self:
        if (count := self.all_threads) > MOST_THREADS:
            raise ValueError(f"{count} threads in each process are too many: {MOST_THREADS} at the most")
        return self

    @property
    def own_threads(self) -> dict[str, int]:
        """How many threads of its own a queue has, for each that has some and is not the only one here."""
        if len(self.queues) == 1:
            return {}
        return {queue.name: queue.threads for queue in self.queues if queue.threads is not None}

    @property
    def shared_threads(self) -> int:
        """How many threads serve the queues without threads of their own, 0 where there is no such queue."""
        if len(self.queues) == 1:
            return self.queues[0].threads or self.threads
        return 0 if self.queues and len(self.own_threads) == len(self.queues) else self.threads

    @property
    def all_threads(self) -> int:
        """How many threads there are, for whatever queues."""
        return self.shared_threads + sum(self.own_threads.values())

    @property
    def slots(self) -> int:
        """How many tasks may run at once."""
        return self.all_threads + self.async_tasks

    @property
    def suspects(self) -> int:
        """How many messages that may take their process down may run at once, each in an isolated process."""
        return min(self.all_threads, MOST_SUSPECTS) if self.isolated is None else self.isolated

    def threads_for(self, queue: str) -> int:
        """Return how many threads serve a queue."""
        return self.own_threads.get(queue, self.shared_threads)

    def prefetch_for(self, queue: str, has_coroutines: bool) -> int:
        """Return how many deliveries of a queue may be here that are not settled."""
        own = next((one.prefetch for one in self.queues if one.name == queue), None)
        prefetch = self.prefetch if own is None else own
        if prefetch is not None:
            return prefetch
        at_once = self.threads_for(queue) + (self.async_tasks if has_coroutines else 0)
        return min(at_once * PREFETCH_PER_THREAD, MOST_PREFETCH)


class WorkerOptions(PoolOptions):
    """The options of a worker process."""

    app: str = Field(min_length=1, description="MODULE:APP")
    stall_timeout: float = Field(60.0, ge=1, allow_inf_nan=False)
    start_timeout: float = Field(60.0, ge=1, allow_inf_nan=False)
    log_level: str = "info"
    log_json: bool | None = None
