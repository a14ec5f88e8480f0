"""
What a supervisor is to run: pools, each of so many worker processes with the same options.

Decides nothing; the command line and the configuration file make these values.
"""

from __future__ import annotations

from dataclasses import dataclass

from amqpworker.worker.options import WorkerOptions

__all__ = ["STALL_TIMEOUT", "START_TIMEOUT", "PoolSpec", "Recycling"]

STALL_TIMEOUT = 60.0
START_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Recycling:
    """When a worker process is replaced by a fresh one: after so many tasks or seconds, or above so many bytes of memory."""

    tasks: int | None = None
    seconds: float | None = None
    memory: int | None = None


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """
    One pool: its name, how many processes, and what each of them does.

    A process whose threads do not move for `stall_timeout` seconds is killed and replaced; so is one that has not loaded
    its app and entered its lifespan within `start_timeout` seconds.
    """

    name: str
    processes: int
    options: WorkerOptions
    recycling: Recycling = Recycling()
    stall_timeout: float = STALL_TIMEOUT
    start_timeout: float = START_TIMEOUT
