"""
What a pool of workers is told on its command line, and the limits of it.

Decides the defaults: prefetch follows threads. Checked once by the parent, and passed on to each child as JSON.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["WorkerOptions"]

PREFETCH_PER_THREAD = 4
MOST_PREFETCH = 65_535


class WorkerOptions(BaseModel):
    """The options of a worker process; durations are seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    app: str = Field(description="MODULE:APP")
    threads: int = Field(8, ge=1, le=10_000)
    prefetch: int | None = Field(None, ge=1, le=MOST_PREFETCH)
    async_tasks: int = Field(100, ge=1, le=MOST_PREFETCH)
    queues: tuple[str, ...] = ()
    drain_timeout: float | None = Field(None, ge=0, allow_inf_nan=False)
    log_level: str = "info"
    log_json: bool | None = None

    @property
    def slots(self) -> int:
        """How many tasks may run at once."""
        return self.threads + self.async_tasks

    def prefetch_for(self, has_coroutines: bool) -> int:
        """Return how many deliveries each queue may have here that are not settled."""
        if self.prefetch is not None:
            return self.prefetch
        places = self.threads + (self.async_tasks if has_coroutines else 0)
        return min(places * PREFETCH_PER_THREAD, MOST_PREFETCH)
