"""
What a supervisor is to run: pools, each of so many worker processes with the same options.

Decides nothing; the command line makes these values. They hold nothing but what JSON has, so that another program can be
given them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["MOST_HOURS", "STALL_TIMEOUT", "START_TIMEOUT", "PoolSpec", "Recycling"]

STALL_TIMEOUT = 60.0
START_TIMEOUT = 60.0
MOST_HOURS = 87_600


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

    `options` are those of each process (`worker.options`, checked, as JSON has them): they are passed on, not read here.
    `slots` is how many tasks may run at once in each.

    A process whose threads do not move for `stall_timeout` seconds is killed and replaced; so is one that has not loaded
    its app and entered its lifespan within `start_timeout` seconds.
    """

    name: str
    processes: int
    options: Mapping[str, Any]
    slots: int
    recycling: Recycling = Recycling()
    stall_timeout: float = STALL_TIMEOUT
    start_timeout: float = START_TIMEOUT
